"""Writing video with OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchserve_client import InferenceResult
from patchserve_client.cli._opencv import opencv
from patchserve_client.cli._report import verdict_of

if TYPE_CHECKING:
    import cv2

_FOURCC = {".avi": "MJPG", ".mkv": "MJPG", ".mov": "mp4v", ".mp4": "mp4v"}
_RED, _GREEN = (40, 40, 230), (60, 180, 60)  # BGR


class AnnotatedVideo:
    """Writes a video of overlays with their verdicts and regions."""

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in _FOURCC:
            raise typer.BadParameter(f"An annotated video must be one of {' '.join(_FOURCC)}, not {path.name}.")
        self._cv2 = opencv()
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._size_px = (0, 0)  # (width, height) of the first frame; others are scaled to this size

    def add(self, result: InferenceResult) -> None:
        """Draw one result and write it. Does nothing if it has no overlay.

        Raises:
            OSError: the file cannot be written.
        """
        import numpy as np  # noqa: PLC0415 - loaded on first use

        overlay = result.encoded_overlay
        if overlay is None:
            return
        image = self._cv2.imdecode(np.frombuffer(overlay.data, np.uint8), self._cv2.IMREAD_COLOR)
        scale = (overlay.width_px / overlay.source_width_px, overlay.height_px / overlay.source_height_px)
        color = _RED if result.anomaly.is_anomalous else _GREEN
        outlines = [(np.array(region.polygon) * scale).astype(np.int32) for region in result.regions]
        self._cv2.polylines(image, outlines, isClosed=True, color=color, thickness=2)
        text = f"{verdict_of(result)} {result.anomaly.score:.3f}"
        self._cv2.putText(image, text, (8, 28), self._cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 4)
        self._cv2.putText(image, text, (8, 28), self._cv2.FONT_HERSHEY_SIMPLEX, 0.8, color, 2)
        if self._writer is None:
            self._size_px = (image.shape[1], image.shape[0])
            fourcc = self._cv2.VideoWriter.fourcc(*_FOURCC[self._path.suffix.lower()])
            self._writer = self._cv2.VideoWriter(str(self._path), fourcc, self._fps, self._size_px)
            if not self._writer.isOpened():
                raise OSError(f"OpenCV cannot write {self._path}.")
        if self._size_px != (image.shape[1], image.shape[0]):
            image = self._cv2.resize(image, self._size_px)
        self._writer.write(image)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
