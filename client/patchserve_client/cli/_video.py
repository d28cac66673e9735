"""Writing video with OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchserve_client import HeatmapScale, InferenceResult
from patchserve_client._annotated import annotated
from patchserve_client.cli._opencv import opencv

if TYPE_CHECKING:
    import cv2

_FOURCC = {".avi": "MJPG", ".mkv": "MJPG", ".mov": "mp4v", ".mp4": "mp4v"}


class AnnotatedVideo:
    """Writes a video of overlays with their verdicts, as `--out` draws them."""

    def __init__(self, path: Path, fps: float, scale: HeatmapScale, threshold: float) -> None:
        if path.suffix.lower() not in _FOURCC:
            raise typer.BadParameter(f"An annotated video must be one of {' '.join(_FOURCC)}, not {path.name}.")
        self._cv2 = opencv()
        self._path, self._fps = path, fps
        self._scale, self._threshold = scale, threshold
        self._writer: cv2.VideoWriter | None = None
        self._size_px = (0, 0)  # (width, height) of the first frame; others are scaled to this size

    def add(self, result: InferenceResult) -> None:
        """Write one result. Does nothing if it has no overlay.

        Raises:
            OSError: the file cannot be written.
        """
        import numpy as np  # noqa: PLC0415 - loaded on first use

        if result.encoded_overlay is None:
            return
        image = np.asarray(annotated(result, self._scale, self._threshold))[:, :, ::-1]  # (H, W, 3) BGR
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
