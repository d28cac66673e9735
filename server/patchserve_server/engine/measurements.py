"""Times of alternatives on this processor, measured once and kept in a folder that can be deleted at any time."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeAlias

import torch

from patchserve_server.system.limits import available_cores

Timer: TypeAlias = Callable[[Mapping[str, Callable[[], object]]], dict[str, float]]
"""Measures each function; returns its time in milliseconds."""

_VERSIONS = ("patchserve", "torch", "openvino")  # whose kernels and code the times are of
_REPEATS = 3
_PROBED_BYTES = 2**25  # hashed in some 20 ms
_LEAST_SHARE = 0.9  # of a core, for each thread
_LARGEST_FILE_BYTES = 2**16

_log = logging.getLogger(__name__)


def shortest_times_ms(functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest time of each function after a first run. They run in turn, so that other work slows all of them."""
    times_ms: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(1 + _REPEATS):
        for name, run in functions.items():
            started_s = time.perf_counter()
            run()
            times_ms[name].append(1000 * (time.perf_counter() - started_s))
    return {name: min(times[1:]) for name, times in times_ms.items()}


def is_calm() -> bool:
    """Whether other programs leave this process all of its cores: what is measured beside them is often wrong."""
    cores, data = available_cores(), bytes(_PROBED_BYTES)
    start = threading.Barrier(cores)

    def share(_number: int) -> float:
        start.wait()
        started_s, used_s = time.perf_counter(), time.thread_time()
        hashlib.sha256(data)  # without the interpreter's lock
        return (time.thread_time() - used_s) / (time.perf_counter() - started_s)

    with ThreadPoolExecutor(cores) as pool:
        return min(pool.map(share, range(cores))) >= _LEAST_SHARE


class Measurements:
    """One file for each measurement, processor and set of versions. Several servers may use the folder at once.

    What is measured while other programs use the processor is not kept. A file that is missing, damaged or of another
    form is measured again. One that cannot be written costs time at the next start.
    """

    def __init__(
        self, folder: Path | None, timer: Timer = shortest_times_ms, calm: Callable[[], bool] = is_calm
    ) -> None:
        """`folder`: None keeps nothing. `calm`: whether a measurement can be trusted; one that cannot is not kept."""
        self._folder = folder
        self._timer = timer
        self._is_calm = calm

    def times_ms(self, name: str, functions: Mapping[str, Callable[[], object]]) -> Mapping[str, float]:
        """The time of each function in milliseconds: the kept ones, or they are measured now.

        Args:
            name: of the measurement, with everything that the times depend on beside processor and versions.
            functions: what is measured. Kept times of others do not count.
        """
        if (kept := self.kept_ms(name, functions)) is not None:
            return kept
        path = self._path(name)
        was_calm = path is not None and self._is_calm()
        times_ms = self._timer(functions)
        if path is not None and not (was_calm and self._is_calm()):
            _log.warning("Other programs use the processor: the next start measures %s again", name)
        elif path is not None:
            _write(path, {"name": name, **_processor(), "times_ms": times_ms})
        return times_ms

    def kept_ms(self, name: str, functions: Collection[str]) -> Mapping[str, float] | None:
        """The kept times of functions with these names; None: they were not measured here."""
        path = self._path(name)
        return None if path is None else _read(path, set(functions))

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{_key(name)}.json"


def _processor() -> dict[str, object]:
    """The processor, as far as times depend on it, and the versions."""
    capabilities = {name: value for name, value in torch.cpu.get_capabilities().items() if value}
    return {
        "processor": capabilities,
        "cores": available_cores(),
        "versions": {name: _version(name) for name in _VERSIONS},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a server on a GPU runs without OpenVINO
        return ""


def _key(name: str) -> str:
    return hashlib.sha256(json.dumps([name, _processor()], sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path, names: set[str]) -> dict[str, float] | None:
    try:
        if not path.is_file():  # to open a pipe waits for its writer
            return None
        with path.open("rb") as file:
            times_ms = json.loads(file.read(_LARGEST_FILE_BYTES))["times_ms"]
        found = {str(name): float(time_ms) for name, time_ms in times_ms.items()}
    except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError):
        _log.info("The kept measurement %s cannot be read: measuring again", path.name)
        return None
    return found if found.keys() == names and all(map(_is_time, found.values())) else None


def _is_time(time_ms: float) -> bool:
    return math.isfinite(time_ms) and time_ms > 0


def _write(path: Path, content: Mapping[str, object]) -> None:
    """Writes the file whole or not at all: another server reads the old one or the new one."""
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, prefix=".", suffix=".tmp", delete=False) as file:
            unfinished = Path(file.name)
            json.dump(content, file, indent=1)
        unfinished.replace(path)
    except OSError as error:
        _log.info("Measurements cannot be kept, the next start measures again: %s", error)
        if unfinished is not None:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
