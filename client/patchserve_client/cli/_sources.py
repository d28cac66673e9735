"""The frames of `patchserve stream`."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from patchserve_client import Frame

_MAX_FRAME_ID_BYTES = 128
_CLOCK_RESOLUTION_S = 1e-6


class Pace:
    """Limits frames to `fps` per second, by any clock; None: no limit."""

    def __init__(self, fps: float | None) -> None:
        self._interval_s = 1 / fps if fps else 0.0
        self._next_at_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """How long the next frame must wait; 0: not at all."""
        early_s = 0.0 if self._next_at_s is None else self._next_at_s - now_s
        return early_s if early_s > _CLOCK_RESOLUTION_S else 0.0

    def passed(self, now_s: float) -> None:
        """Record a frame. After a pause, later frames are not faster to catch up."""
        due_s = now_s if self._next_at_s is None else self._next_at_s
        self._next_at_s = max(due_s, now_s - self._interval_s) + self._interval_s


@contextmanager
def set_by_ctrl_c() -> Iterator[Event]:
    """Yields an event that the first Ctrl-C sets, so that the frames end. A second Ctrl-C interrupts as usual.

    An immediate interrupt would lose the results of frames in progress, and could occur inside one of gRPC's locks.
    """
    event = Event()
    earlier_handler = signal.getsignal(signal.SIGINT)

    def end_frames(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, earlier_handler)

    signal.signal(signal.SIGINT, end_frames)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, earlier_handler)


def folder_frames(
    files: list[Path], fps: float | None, unreadable: deque[tuple[str, OSError]], end: Event
) -> Iterator[Frame]:
    """Image files as frames, until `end` is set. Files that cannot be read are added to `unreadable` instead."""
    pace = Pace(fps)
    for file in files:
        if end.wait(pace.wait_s(time.monotonic())):
            return
        pace.passed(time.monotonic())
        try:
            image = file.read_bytes()
        except OSError as error:
            unreadable.append((file.name, error))
        else:
            yield Frame(image, _frame_id(file.name))


def _frame_id(name: str) -> str:
    """The name, or the end of a long name: long names often have the same beginning."""
    return name.encode(errors="replace")[-_MAX_FRAME_ID_BYTES:].decode(errors="ignore")
