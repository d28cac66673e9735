"""Writes the log on a thread of its own: whoever logs never waits for a terminal, a pipe or a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Final, TextIO

from patchserve_server.telemetry.log_lines import Fields, Write, fields_of

MAX_WAITING: Final = 10_000  # lines; of more, the newest are left out, and counted
_GATHERING_S: Final = 0.05  # lines of this time are written together: waking the thread for each costs more
_END_S: Final = 2.0  # how long the end of the process waits for a stream that is blocked


class BackgroundHandler(logging.Handler):
    """Writes records to a stream, soon. If the stream is blocked, records wait in bounded memory.

    Args:
        stream: where lines go.
        write: the text of a line.
        max_waiting: how many lines may wait.
    """

    def __init__(self, stream: TextIO, write: Write, max_waiting: int = MAX_WAITING) -> None:
        super().__init__()
        self._stream = stream
        self._write = write
        self._max_waiting = max_waiting
        self._waiting: deque[Fields] = deque()
        self._left_out = 0
        self._something = threading.Event()
        self._is_closed = False
        self._writing = threading.Lock()  # one thread writes at a time
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a line to those that wait."""
        try:
            if len(self._waiting) >= self._max_waiting:
                self._left_out += 1
                return
            self._waiting.append(fields_of(record))
        except Exception:  # noqa: BLE001 - a log must not fail what it tells about
            self.handleError(record)
            return
        if not self._something.is_set():
            self._something.set()

    def flush(self) -> None:
        """Writes what waits, on this thread; not if the stream is blocked."""
        if not self._writing.acquire(timeout=_END_S):
            return
        try:
            if lines := self._take():
                with suppress(OSError, ValueError):  # whoever reads the log has gone
                    self._stream.write("".join(lines))
                    self._stream.flush()
        finally:
            self._writing.release()

    def close(self) -> None:
        """Writes what waits, and ends the thread."""
        self._is_closed = True
        self._something.set()
        self.flush()
        super().close()

    def _run(self) -> None:
        while not self._is_closed:
            self._something.wait()
            time.sleep(_GATHERING_S)
            self._something.clear()
            self.flush()

    def _take(self) -> list[str]:
        lines = []
        while self._waiting:
            lines.append(self._line(self._waiting.popleft()))
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            event = f"{left_out} lines are left out here: whoever reads the log is too slow"
            lines.append(self._line({"timestamp": time.time(), "level": "warning", "logger": __name__, "event": event}))
        return lines

    def _line(self, fields: Fields) -> str:
        try:
            return f"{self._write(fields)}\n"
        except Exception as error:  # noqa: BLE001 - such as the text of a value that cannot be made
            event = f"A line of {fields.get('logger')} cannot be written: {type(error).__name__}"
            return f"{self._write({'timestamp': time.time(), 'level': 'error', 'logger': __name__, 'event': event})}\n"
