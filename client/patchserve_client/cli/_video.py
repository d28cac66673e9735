"""Reading and writing video with OpenCV: the optional extra `video`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import TYPE_CHECKING

import typer

from patchserve_client import Frame, HeatmapScale, InferenceResult
from patchserve_client._annotated import annotated
from patchserve_client.cli._sources import Pace

if TYPE_CHECKING:
    import cv2

_JPEG_QUALITY = 95
_FOURCC = {".avi": "MJPG", ".mkv": "MJPG", ".mov": "mp4v", ".mp4": "mp4v"}


def opencv() -> ModuleType:
    """The module of OpenCV.

    Raises:
        typer.BadParameter: it is not installed.
    """
    try:
        import cv2  # noqa: PLC0415 - optional
    except ImportError as error:
        raise typer.BadParameter('Video requires OpenCV: pip install "patchserve[video]".') from error
    return cv2


class Video:
    """A video file, a camera (its index) or a stream (its URL)."""

    def __init__(self, source: str) -> None:
        self._cv2 = opencv()
        self._is_live = not Path(source).is_file()
        self._capture = self._cv2.VideoCapture(int(source) if source.isdigit() else source)
        if not self._capture.isOpened():
            raise typer.BadParameter(f"OpenCV cannot open {source} as a video, a camera or a stream.")
        self.fps: float | None = self._capture.get(self._cv2.CAP_PROP_FPS) or None

    def frames(self, fps: float | None, end: Event) -> Iterator[Frame]:
        """At most `fps` frames a second until `end` is set: by the time in a file, by the clock for a live source."""
        pace, number = Pace(fps), 0
        try:
            while not end.is_set() and self._capture.grab():
                now_s = time.monotonic() if self._is_live or self.fps is None else number / self.fps
                number += 1
                if pace.wait_s(now_s):
                    continue
                pace.passed(now_s)
                is_decoded, pixels = self._capture.retrieve()
                if is_decoded:
                    quality = [self._cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
                    image = self._cv2.imencode(".jpg", pixels, quality)[1].tobytes()
                    yield Frame(image, str(number - 1), datetime.now(UTC) if self._is_live else None)
        finally:
            self._capture.release()


class AnnotatedVideo:
    """Writes a video of calibrated overlays with their verdicts."""

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in _FOURCC:
            raise typer.BadParameter(f"An annotated video must be one of {' '.join(_FOURCC)}, not {path.name}.")
        self._cv2 = opencv()
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._size_px = (0, 0)  # (width, height) of the first frame; others are scaled to this size

    def add(self, result: InferenceResult) -> None:
        """Write one result as `infer --out` draws it. Does nothing if it has no overlay.

        Raises:
            OSError: the file cannot be written.
        """
        import numpy as np  # noqa: PLC0415 - loaded on first use

        if result.encoded_overlay is None:
            return
        image = np.asarray(annotated(result, HeatmapScale.CALIBRATED))[:, :, ::-1]  # (H, W, 3) BGR
        if self._writer is None:
            self._size_px = (image.shape[1], image.shape[0])
            fourcc = self._cv2.VideoWriter.fourcc(*_FOURCC[self._path.suffix.lower()])
            self._writer = self._cv2.VideoWriter(str(self._path), fourcc, self._fps, self._size_px)
            if not self._writer.isOpened():
                raise OSError(f"OpenCV cannot write {self._path}.")
        if self._size_px != (image.shape[1], image.shape[0]):
            image = self._cv2.resize(image, self._size_px)
        self._writer.write(np.ascontiguousarray(image))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
