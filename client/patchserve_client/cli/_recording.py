"""The frames of a recording: a video file, or a URL of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from patchserve_client import Frame
from patchserve_client.cli._opencv import decoded, frame_count, jpeg, opencv, opened
from patchserve_client.cli._sources import Pace, SourceError, SourceOptions, shown

if TYPE_CHECKING:
    import cv2

_OPEN_TIMEOUT_S = 30.0
_MISSING_SHARE = 0.05  # of the duration. Containers round it, so a little less than announced is complete


@dataclass(frozen=True, slots=True, eq=False)
class RecordedFrame:
    """A frame that is not decoded yet. It can be until the next one is read."""

    number: int
    position_s: float
    _capture: cv2.VideoCapture

    def image(self) -> bytes | None:
        """The frame as JPEG; None: it is damaged."""
        pixels = decoded(self._capture)
        return None if pixels is None else jpeg(pixels)


class Recording:
    """Opens the file to check it, and again for each pass over its frames.

    Raises:
        SourceError: OpenCV cannot read it, or it has no frames.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        capture = self._opened()
        self.fps: float | None = capture.get(opencv().CAP_PROP_FPS) or None
        self.frame_count = frame_count(capture)  # what the file says; 0: it does not say
        has_frames = capture.grab()
        capture.release()
        if not has_frames:
            raise SourceError(f"{shown(address)} has no frames that OpenCV can read.")

    def _opened(self) -> cv2.VideoCapture:
        capture = opened(self._address, _OPEN_TIMEOUT_S)
        if not capture.isOpened():
            raise SourceError(f"OpenCV cannot read {shown(self._address)}: it is not a video, or it is damaged.")
        return capture

    def recorded(self) -> Iterator[RecordedFrame]:
        """All frames in order.

        Raises:
            SourceError: after the last frame, if the file ends before it should.
        """
        cv2 = opencv()
        capture = self._opened()
        number, position_s = 0, 0.0
        try:
            while capture.grab():
                position_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if number and not position_s and self.fps:  # the container has no times
                    position_s = number / self.fps
                yield RecordedFrame(number, position_s, capture)
                number += 1
        finally:
            capture.release()
        duration_s = self.frame_count / self.fps if self.fps else 0.0
        missing_s = duration_s - position_s - (1 / self.fps if self.fps else 0.0)
        if missing_s > max(_MISSING_SHARE * duration_s, 1 / self.fps if self.fps else 0.0):
            message = f"It ended after {number} frames at {position_s:.1f} s, and should have {duration_s:.1f} s"
            raise SourceError(f"{shown(self._address)} is incomplete or damaged. {message}.")


class RecordedSource:
    """The frames of a recording for a stream. Their capture times begin with the time of the first read."""

    is_live = False

    def __init__(self, recording: Recording, options: SourceOptions) -> None:
        self._recording, self._options = recording, options
        self.fps = recording.fps
        self.left_out_count = 0

    def frames(self) -> Iterator[Frame]:
        """Every frame, or at most `options.fps` for each second of the recording."""
        pace, start = Pace(self._options.fps), datetime.now(UTC)
        for recorded in self._recording.recorded():
            if self._options.end.is_set():
                return
            if pace.wait_s(recorded.position_s):
                continue
            pace.passed(recorded.position_s)
            image = recorded.image()
            if image is not None:
                yield Frame(image, str(recorded.number), start + timedelta(seconds=recorded.position_s))
