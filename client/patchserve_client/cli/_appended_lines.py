"""A file that grows by whole lines, also on a disk that is full for a while."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from patchserve_client.cli._output import print_note

_MAX_WAITING_LINES = 10_000


class AppendedLines:
    """Appends lines to a file. Threads may share it. Lines that cannot be written are written with a later one.

    `lost_count` is the number of lines that had to be given up.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lost_count = 0
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._is_failing = False
        if _ends_in_half_a_line(path):
            self._waiting.append(b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            self._try_to_write()
        self.lost_count += len(self._waiting)

    def append(self, line: bytes) -> None:
        """Write a line, without its end. If that fails, say so once."""
        with self._lock:
            self._waiting.append(line + b"\n")
            if len(self._waiting) > _MAX_WAITING_LINES:
                self._waiting.popleft()
                self.lost_count += 1
            self._try_to_write()

    def _try_to_write(self) -> None:
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if not self._is_failing:
                print_note(f"Warning: {self._path}: {error.strerror}. Its lines wait until there is room.")
            self._is_failing = True
        else:
            self._is_failing = False

    def _write(self, line: bytes) -> None:
        status = os.fstat(self._file.fileno())
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            if stat.S_ISREG(status.st_mode):
                os.ftruncate(self._file.fileno(), status.st_size)  # the part of the line that was written
            raise


def _ends_in_half_a_line(path: Path) -> bool:
    """Whether an earlier run was killed while it wrote."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
