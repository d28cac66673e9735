"""One connection to a camera, read by a thread of its own."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

from patchserve_client.cli._opencv import decoded, frame_count, opencv, opened
from patchserve_client.cli._sources import Pace

if TYPE_CHECKING:
    import cv2

_WAITING_FRAMES = 8  # if none may be left out; raw pixels need much memory


@dataclass(frozen=True, slots=True, eq=False)
class CapturedFrame:
    """A frame of a camera. `capture_time` is when it arrived."""

    number: int
    capture_time: datetime
    pixels: Any  # (H, W, 3) BGR uint8


class CameraConnection:
    """Reads all the time: a frame that waits in a buffer of the network or the driver would get old unnoticed.

    Only its thread touches OpenCV, because opening and reading can block. A connection that is closed while it blocks
    is left to its thread, which releases it when the call returns.

    Args:
        address: the camera.
        timeout_s: limits opening, and waiting for the next frame, where OpenCV can.
        fps: the largest number of frames a second to keep; None: all.
        drops_oldest: keep the newest frame only. Otherwise reading waits until frames are taken.
        first_number: the number of the first frame.
    """

    def __init__(
        self, address: str, timeout_s: float, fps: float | None, *, drops_oldest: bool, first_number: int = 0
    ) -> None:
        self.fps: float | None = None
        self.frame_count = 0  # above 0: a recording and not a camera
        self.is_open = self.has_ended = False
        self.next_number = first_number
        self.left_out_count = 0  # frames that nobody took
        self.heard_at_s = time.monotonic()  # when it was opened, or its last frame came
        self._address, self._timeout_s = address, timeout_s
        self._pace, self._drops_oldest = Pace(fps), drops_oldest
        self._changed = Condition()
        self._frames: deque[CapturedFrame] = deque()
        self._is_closed = False
        self._thread = Thread(target=self._run, name="camera", daemon=True)
        opencv()  # an error here, and not in the thread
        self._thread.start()

    def take(self, timeout_s: float) -> CapturedFrame | None:
        """The next frame, or the newest one; None: there is none yet."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self.has_ended, timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def wait_until_open(self, timeout_s: float) -> bool:
        """Whether it is open, or has ended, before the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_open or self.has_ended, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Stop reading. Waits at most `timeout_s` for a call that blocks."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        capture = None
        try:
            capture = opened(self._address, self._timeout_s)
            if capture.isOpened():
                self._read(capture)
        finally:
            if capture is not None:
                capture.release()
            self._set(has_ended=True)

    def _read(self, capture: cv2.VideoCapture) -> None:
        self.fps = capture.get(opencv().CAP_PROP_FPS) or None
        self.frame_count = frame_count(capture)
        self.heard_at_s = time.monotonic()
        self._set(is_open=True)
        while self._may_read() and capture.grab():
            self.heard_at_s, capture_time = time.monotonic(), datetime.now(UTC)
            number, self.next_number = self.next_number, self.next_number + 1
            if self._pace.wait_s(self.heard_at_s):
                continue
            self._pace.passed(self.heard_at_s)
            pixels = decoded(capture)
            if pixels is not None:
                self._keep(CapturedFrame(number, capture_time, pixels))

    def _may_read(self) -> bool:
        with self._changed:
            if not self._drops_oldest:
                self._changed.wait_for(lambda: self._is_closed or len(self._frames) < _WAITING_FRAMES)
            return not self._is_closed

    def _keep(self, frame: CapturedFrame) -> None:
        with self._changed:
            if self._drops_oldest and self._frames:
                self._frames.clear()
                self.left_out_count += 1
            self._frames.append(frame)
            self._changed.notify_all()

    def _set(self, **states: bool) -> None:
        with self._changed:
            for name, value in states.items():
                setattr(self, name, value)
            self._changed.notify_all()
