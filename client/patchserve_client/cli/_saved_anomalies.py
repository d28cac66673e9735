"""`--save-anomalies DIR`: a folder for each anomalous image, with the image, its overlay and its result."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from patchserve_client import InferenceResult
from patchserve_client.cli import _report
from patchserve_client.cli._failed_writes import FailedWrites
from patchserve_client.cli._overlays import OverlayStyle
from patchserve_client.cli._verdict_options import VerdictOptions

_TIME_FORM = "%Y%m%dT%H%M%S.%fZ"
_NAME_FORM = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)_.+")
_UNFINISHED = ".unfinished-"
_MAX_NAME_LENGTH = 80
_ABANDONED_AFTER_S = 3600
_SUFFIX_BY_START = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II": ".tif",
    b"MM": ".tif",
}


@dataclass(frozen=True, slots=True)
class SavedAnomaliesLimits:
    """How many anomalies a folder keeps, and for how long. The oldest are deleted first."""

    max_count: int
    max_age: timedelta


class SavedAnomalies:
    """Threads may share it. An anomaly that cannot be saved does not end the inspection; it fails at the end.

    Raises:
        OSError: the folder cannot be made or written; at the end: an anomaly could not be saved.
    """

    def __init__(
        self,
        folder: Path,
        limits: SavedAnomaliesLimits,
        style: OverlayStyle,
        verdicts: VerdictOptions,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder, self._limits, self._clock = folder, limits, clock
        self._style, self._verdicts = style, verdicts
        self._lock = threading.Lock()
        self._failed = FailedWrites(folder, "anomaly", "anomalies")
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=folder, prefix=_UNFINISHED).cleanup()  # an error now, and not with an anomaly
        self._saved = deque(sorted(path for path in folder.iterdir() if _is_ours(path)))
        for unfinished in folder.glob(f"{_UNFINISHED}*"):  # of a process that was killed
            if self._clock().timestamp() - unfinished.stat().st_mtime > _ABANDONED_AFTER_S:
                _delete(unfinished)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._failed.fail_if_any()

    def add(
        self,
        name: str,
        image: bytes,
        outcome: _report.Outcome,
        sequence: int | None = None,
        capture_time: datetime | None = None,
    ) -> None:
        """Save an outcome if it is anomalous, and delete what is over the limits."""
        try:
            if not (isinstance(outcome, InferenceResult) and outcome.anomaly.is_anomalous):
                with self._lock:
                    self._delete_old()
                return
            facts = {"name": name, "sequence": sequence, "capture_time": capture_time}
            files = {
                f"original{_suffix(image)}": image,
                f"overlay{self._style.suffix}": self._style.drawn(outcome, self._verdicts.threshold),
                "result.json": self._document(outcome, facts),
            }
            with self._lock:
                self._save(name, files)
                self._delete_old()
        except OSError as error:
            self._failed.add(error)

    def _document(self, result: InferenceResult, facts: Mapping[str, object]) -> bytes:
        described = _report.as_json(result, _report.verdict_of(result), self._verdicts)
        document = {"time": self._clock(), **facts, **described}
        return json.dumps(document, indent=2, default=datetime.isoformat).encode() + b"\n"

    def _save(self, name: str, files: Mapping[str, bytes]) -> None:
        """Write the files of one anomaly into a new folder, which gets its name when they are complete."""
        safe_name = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[-_MAX_NAME_LENGTH:] or "image"
        title = f"{self._clock().strftime(_TIME_FORM)}_{safe_name}"
        unfinished = self._folder / f"{_UNFINISHED}{title}"
        try:
            unfinished.mkdir()
            for file_name, content in files.items():
                (unfinished / file_name).write_bytes(content)
            saved = self._free_path(title)
            unfinished.rename(saved)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self._saved.append(saved)

    def _free_path(self, title: str) -> Path:
        names = itertools.chain([title], (f"{title}_{number}" for number in itertools.count(2)))
        return next(path for name in names if not (path := self._folder / name).exists())

    def _delete_old(self) -> None:
        oldest = (self._clock() - self._limits.max_age).strftime(_TIME_FORM)
        while self._saved and (len(self._saved) > self._limits.max_count or self._saved[0].name < oldest):
            _delete(self._saved.popleft())


def _is_ours(path: Path) -> bool:
    return _NAME_FORM.fullmatch(path.name) is not None and (path / "result.json").is_file()


def _delete(folder: Path) -> None:
    """Delete the files that we wrote. If somebody has put others beside them, the folder stays with those."""
    for file in folder.glob("*"):
        if file.name == "result.json" or file.stem in ("original", "overlay"):
            file.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process may use the folder too
        if not any(folder.iterdir()):
            folder.rmdir()


def _suffix(image: bytes) -> str:
    return next((suffix for start, suffix in _SUFFIX_BY_START.items() if image.startswith(start)), "")
