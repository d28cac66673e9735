"""The frames of a stream that are sent and have no result yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from threading import Condition, Event

from patchserve_client import Frame

_POLL_INTERVAL_S = 0.1  # how soon Ctrl-C is noticed


class FramesInFlight:
    """Takes a frame of the source only when there is a place for it, so that a live source is asked for its newest one.

    Args:
        frames: the source.
        max_count: the number of places; None: the server's flow control is enough.
        keeps_images: keep each image until its result is there.
        end: set by Ctrl-C.
    """

    def __init__(self, frames: Iterator[Frame], max_count: int | None, end: Event, *, keeps_images: bool) -> None:
        self._frames, self._max_count, self._end = frames, max_count, end
        self._keeps_images = keeps_images
        self._images: dict[int, bytes] = {}  # by the frame's place in the stream
        self._count = 0
        self._changed = Condition()

    def __iter__(self) -> Iterator[Frame]:
        for sequence in itertools.count():
            if not self._has_place():
                return
            frame = next(self._frames, None)
            if frame is None:
                return
            if self._keeps_images and isinstance(frame.image, bytes):
                self._images[sequence] = frame.image
            yield frame

    def answered(self, sequence: int) -> bytes | None:
        """A result is there: its place is free. Returns the image, if images are kept."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()
        return self._images.pop(sequence, None)

    def _has_place(self) -> bool:
        """Take a place; wait for one. False: Ctrl-C."""
        with self._changed:
            while self._max_count is not None and self._count >= self._max_count:
                if self._end.is_set():
                    return False
                self._changed.wait(_POLL_INTERVAL_S)
            self._count += 1
            return True
