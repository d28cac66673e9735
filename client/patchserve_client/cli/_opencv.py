"""OpenCV, the optional extra `video`: opens videos and cameras, and encodes their frames."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from patchserve_client.cli._sources import SourceError

if TYPE_CHECKING:
    from cv2 import VideoCapture

_JPEG_QUALITY = 95


def opencv() -> ModuleType:
    """The module of OpenCV, without its own messages on stderr.

    Raises:
        SourceError: it is not installed.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2  # noqa: PLC0415 - optional
    except ImportError as error:
        raise SourceError('Video requires OpenCV: `pip install ".[video]"` in a checkout of patchserve.') from error
    return cv2


def opened(address: str, timeout_s: float) -> VideoCapture:
    """A video file, a camera (its index or device) or a stream (its URL). Check whether it `isOpened()`.

    `timeout_s` limits opening a URL, and waiting for its next frame.
    """
    cv2 = opencv()
    source: tuple[Any, ...] = (int(address) if address.isdigit() else address,)
    if "://" in address:
        timeout_ms = max(1, int(1000 * timeout_s))
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
        source = (address, cv2.CAP_FFMPEG, limits)
    return cast("VideoCapture", cv2.VideoCapture(*source))


def frame_count(capture: VideoCapture) -> int:
    """How many frames a recording says that it has; 0: it does not say, or it is live."""
    return max(0, int(capture.get(opencv().CAP_PROP_FRAME_COUNT)))


def decoded(capture: VideoCapture) -> Any:  # noqa: ANN401 - an array, (H, W, 3) BGR uint8
    """The frame that was grabbed; None: it is damaged."""
    try:
        is_decoded, pixels = capture.retrieve()
    except opencv().error:
        return None
    return pixels if is_decoded else None


def jpeg(pixels: Any) -> bytes:  # noqa: ANN401 - an array, (H, W, 3) BGR uint8
    """The encoded frame. References that are captured and frames that are streamed are encoded alike."""
    cv2 = opencv()
    encoded: bytes = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    return encoded


def is_camera(source: str) -> bool:
    """Whether a source is written like a camera or a stream, and not like a file."""
    return source.isdigit() or "://" in source or Path(source).is_char_device()
