"""A contact sheet of the largest mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from patchserve_client import Client, HeatmapScale, ReferenceInfo
from patchserve_client.evaluation.dataset import read_mask
from patchserve_client.evaluation.run import Verdict

_PAIRS_PER_ROW = 3
_CELL_INCHES = 2.1
_DPI = 120
_MAX_SIDE_PX = 512
_MISTAKE_COLOR, _CORRECT_COLOR = "#b3243b", "#444444"


def worst_verdicts(verdicts: Sequence[Verdict], count: int = 12) -> list[Verdict]:
    """The mistakes, the largest first, then the correct verdicts closest to the threshold."""
    return sorted(verdicts, key=lambda verdict: verdict.margin)[:count]


def draw_mistakes(client: Client, reference: ReferenceInfo, verdicts: Sequence[Verdict], path: Path) -> None:
    """Draw the images with the largest mistakes next to their overlays in the calibrated scale. Masks are outlined.

    Raises:
        PatchserveError: the server returns no overlay.
    """
    shown = worst_verdicts(verdicts)
    mistakes = sum(not verdict.is_correct for verdict in verdicts)
    rows = -(-len(shown) // _PAIRS_PER_ROW)
    figure = Figure(
        figsize=(2 * _PAIRS_PER_ROW * _CELL_INCHES, rows * (_CELL_INCHES + 0.6) + 0.6), layout="constrained"
    )
    figure.suptitle(f"Worst mistakes first: {mistakes} of {len(verdicts)} verdicts are wrong (white lines: masks)")
    cells = figure.subplots(rows, 2 * _PAIRS_PER_ROW, squeeze=False).ravel()
    for cell in cells:
        cell.set_axis_off()
        cell.set_anchor("NW")
    for verdict, image_cell, overlay_cell in zip(shown, cells[::2], cells[1::2], strict=False):
        result = client.infer(
            verdict.image.path,
            reference.reference_id,
            overlay=True,
            heatmap_scale=HeatmapScale.CALIBRATED,
            max_regions=0,
            expected_revision=reference.revision,
        )
        if result.overlay is not None:
            _show(overlay_cell, result.overlay, verdict)
        with Image.open(verdict.image.path) as image:
            _show(image_cell, ImageOps.exif_transpose(image), verdict)
        _caption(image_cell, verdict)
    figure.savefig(path, dpi=_DPI)


def _show(cell: Axes, image: Image.Image, verdict: Verdict) -> None:
    width_px, height_px = image.size
    if image.mode.startswith("I;16"):  # Pillow would clip the brighter values
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    thumbnail = image.convert("RGB")
    thumbnail.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    cell.imshow(np.asarray(thumbnail), extent=(0, width_px, height_px, 0))
    if verdict.image.mask_path is not None:
        mask = read_mask(verdict.image.mask_path)
        cell.contour(mask, [0.5], colors=["white"], linewidths=0.8)


def _caption(cell: Axes, verdict: Verdict) -> None:
    kind = "correct" if verdict.is_correct else "missed" if verdict.image.defect else "false alarm"
    text = f"{kind}: {verdict.image.defect or 'intact'}, score {verdict.anomaly.score:.3f}\n{verdict.image.path.name}"
    color = _CORRECT_COLOR if verdict.is_correct else _MISTAKE_COLOR
    cell.set_title(text, fontsize=8, loc="left", color=color)
