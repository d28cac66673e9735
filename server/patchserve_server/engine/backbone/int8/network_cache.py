"""Quantized networks in a folder, by digest: saves their making after a restart, and can be deleted at any time."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

_SUFFIX = ".safetensors"
_UNFINISHED = "unfinished"  # one at a time: the next write takes the place of what a kill left
_MAX_SPARE_BYTES = 2**30

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network as OpenVINO writes it."""

    graph: bytes  # XML
    weights: bytes

    @classmethod
    def of(cls, model: openvino.Model) -> NetworkFile:
        with TemporaryDirectory(prefix="patchserve-") as folder:
            path = Path(folder) / "network.xml"
            openvino.serialize(model, path)
            return cls(path.read_bytes(), path.with_suffix(".bin").read_bytes())

    def model(self) -> openvino.Model:
        return openvino.Core().read_model(self.graph, self.weights)

    def digest(self, key: str) -> str:
        digest = hashlib.sha256(f"{key} {len(self.graph)} ".encode())
        digest.update(self.graph)
        digest.update(self.weights)
        return digest.hexdigest()


class NetworkCache:
    """One file a network, for one writer at a time. What goes wrong is logged: the network is then made again."""

    def __init__(self, folder: Path, *, max_spare_bytes: int = _MAX_SPARE_BYTES) -> None:
        self._folder = folder
        self._max_spare_bytes = max_spare_bytes
        self._is_told = False

    def read(self, key: str) -> NetworkFile | None:
        """The network that was written with this key, proven by its digest."""
        path = self._path(key)
        try:
            with safe_open(path, "numpy") as opened:
                said = (opened.metadata() or {}).get("sha256")
                file = NetworkFile(opened.get_tensor("graph").tobytes(), opened.get_tensor("weights").tobytes())
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            _log.warning("The quantized network %s is made again: its file cannot be read (%s)", path.name, error)
            return None
        if file.digest(key) != said:
            _log.warning("The quantized network %s is made again: its file is not what was written", path.name)
            return None
        with suppress(OSError):
            os.utime(path)
        return file

    def write(self, key: str, file: NetworkFile, *, in_use: AbstractSet[str] = frozenset()) -> None:
        """Keeps a network, whole or not at all; those not in use go beyond a bound, the least recently used first."""
        tensors = {"graph": np.frombuffer(file.graph, np.uint8), "weights": np.frombuffer(file.weights, np.uint8)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = self._folder / _UNFINISHED
            unfinished.write_bytes(save(tensors, {"sha256": file.digest(key)}))
            unfinished.replace(self._path(key))
            self._make_room({*in_use, key})
        except OSError as error:
            if not self._is_told:
                _log.warning("Quantized networks are not kept, and made again after a restart: %s", error)
            self._is_told = True

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _make_room(self, in_use: AbstractSet[str]) -> None:
        spare = [(path.stat(), path) for path in self._folder.glob(f"*{_SUFFIX}") if path.stem not in in_use]
        total = 0
        for stat, path in sorted(spare, key=lambda it: it[0].st_mtime, reverse=True):
            total += stat.st_size
            if total > self._max_spare_bytes:
                path.unlink(missing_ok=True)
