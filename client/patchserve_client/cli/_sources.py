"""Where the frames of `patchserve stream` come from."""

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
_CLOCK_GRAIN_S = 1e-6


class Pace:
    """At most `fps` frames a second of whichever clock the caller reads; None: all."""

    def __init__(self, fps: float | None) -> None:
        self._interval_s = 1 / fps if fps else 0.0
        self._due_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """How long until the next frame is due; 0: it is."""
        early_s = 0.0 if self._due_s is None else self._due_s - now_s
        return early_s if early_s > _CLOCK_GRAIN_S else 0.0

    def taken(self, now_s: float) -> None:
        """After a pause it goes on from now, without making up for it."""
        due_s = now_s if self._due_s is None else self._due_s
        self._due_s = max(due_s, now_s - self._interval_s) + self._interval_s


@contextmanager
def set_by_ctrl_c() -> Iterator[Event]:
    """An event that the first Ctrl-C sets, for frames to end by; the second interrupts as ever.

    An interrupt instead would come in the middle of gRPC's locks, and leave answers behind that are under way.
    """
    event = Event()
    before = signal.getsignal(signal.SIGINT)

    def end(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, end)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def folder_frames(
    files: list[Path], fps: float | None, unreadable: deque[tuple[str, OSError]], end: Event
) -> Iterator[Frame]:
    """Images as if a camera took them, until `end` is set. What cannot be read goes to `unreadable`, left out."""
    pace = Pace(fps)
    for file in files:
        if end.wait(pace.wait_s(time.monotonic())):
            return
        pace.taken(time.monotonic())
        try:
            image = file.read_bytes()
        except OSError as error:
            unreadable.append((file.name, error))
        else:
            yield Frame(image, _frame_id(file.name))


def _frame_id(name: str) -> str:
    """The end of a long name, which tells neighbors apart."""
    return name.encode(errors="replace")[-_MAX_FRAME_ID_BYTES:].decode(errors="ignore")
