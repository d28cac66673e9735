"""What every source of frames has in common: errors, pace, the end by Ctrl-C, and names."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from patchserve_client import Frame

_CLOCK_RESOLUTION_S = 1e-6

Tell = Callable[[str, str], None]
"""Tells the user about a source: the kind of the event, such as "reconnecting", and a sentence."""


Unreadable = Callable[[str, OSError], None]
"""Tells the user about a file that cannot be read: its name, and why."""


class SourceError(OSError):
    """A source cannot be opened, or ended before it should."""


class Source(Protocol):
    """`fps` is the frame rate of the source; None: unknown. `left_out_count` is how many frames it had to leave out."""

    is_live: bool
    fps: float | None

    @property
    def left_out_count(self) -> int: ...

    def frames(self) -> Iterator[Frame]:
        """The frames, until the source ends or Ctrl-C.

        Raises:
            SourceError: the source ended before it should.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read a source. Not every kind of source uses every option."""

    end: Event  # set by Ctrl-C: there are no more frames then
    tell: Tell
    written_folders: tuple[Path, ...] = ()  # what the command writes there are no frames
    fps: float | None = None  # the largest number of frames a second; None: all
    drops_oldest: bool = True  # a live source leaves frames out instead of waiting
    frozen_after_s: float = 10.0  # a live source without a new frame for so long is opened again
    reconnect_for_s: float = 300.0  # how long to try; 0: not at all


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


def shown(address: str) -> str:
    """An address for messages, without the password of a camera."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", address)
