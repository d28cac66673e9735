"""Writes the overlays of a scan."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import Executor
from typing import Final

from patchserve_server.domain.events import ImageInspected
from patchserve_server.domain.inspection import OverlayFormat
from patchserve_server.scan.options import Overlays, ScanOptions
from patchserve_server.scan.plan import OVERLAYS, Part
from patchserve_server.scan.results import Results

_ENDINGS: Final = {OverlayFormat.PNG: "png", OverlayFormat.JPEG: "jpg", OverlayFormat.WEBP: "webp"}
_MAX_STEM: Final = 80


def overlay_file(options: ScanOptions, part: Part, index: int) -> str:
    """The name of the overlay of an image of a part: always the same, so that a repeated scan writes it again."""
    stem = re.split(r"[/\\]", part.paths[index])[-1].rpartition(".")[0]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[-_MAX_STEM:]
    return f"{OVERLAYS}/{part.name}/{index:04}-{safe}.{_ENDINGS[options.overlay_format]}"


class OverlayFiles:
    """Implements `outputs.Saver`: an inspection is over when its overlay is written, if it gets one.

    Args:
        options: say which images get one.
        results: where they are written.
        drawing: draws them.
        writing: writes them.
    """

    def __init__(self, options: ScanOptions, results: Results, drawing: Executor, writing: Executor) -> None:
        self._options = options
        self._results = results
        self._drawing = drawing
        self._writing = writing

    def is_wanted(self, *, is_anomalous: bool) -> bool:
        overlays = self._options.overlays
        return overlays is Overlays.ALL or (overlays is Overlays.ANOMALOUS and is_anomalous)

    async def save(self, inspected: ImageInspected) -> None:
        """Draws and writes the overlay. The name of the image is that of the file."""
        if not self.is_wanted(is_anomalous=inspected.inspection.verdict.anomaly.is_anomalous):
            return
        loop, overlay = asyncio.get_running_loop(), inspected.inspection.overlay
        if overlay is None:
            overlay = await loop.run_in_executor(self._drawing, inspected.draw_overlay, inspected.image)
        await loop.run_in_executor(self._writing, self._results.write, inspected.origin.name, overlay.data)
