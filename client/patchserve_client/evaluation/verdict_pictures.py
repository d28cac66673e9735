"""The worst verdicts as pictures: the image with its mask outlined, and the overlay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from patchserve_client import Client, HeatmapScale, ReferenceInfo, Timing
from patchserve_client.evaluation.dataset import read_mask
from patchserve_client.evaluation.run import Verdict
from patchserve_client.evaluation.sheet_layout import shown_size

_MASK_COLOR = "#ffffff"


@dataclass(frozen=True, slots=True, eq=False)
class VerdictPicture:
    """One verdict, in pictures of the same size."""

    verdict: Verdict
    image: Image.Image  # its mask outlined
    overlay: Image.Image  # on the calibrated scale
    timing: Timing  # of the server for this image alone


def worst_verdicts(verdicts: Sequence[Verdict], count: int = 12) -> list[Verdict]:
    """The mistakes, the largest first, then the correct verdicts closest to the threshold."""
    return sorted(verdicts, key=lambda verdict: verdict.margin)[:count]


def drawn_verdicts(client: Client, reference: ReferenceInfo, verdicts: Sequence[Verdict]) -> Iterator[VerdictPicture]:
    """Draw verdicts. The server inspects the images again, one at a time.

    Raises:
        PatchserveError: the server returns no overlay.
    """
    for verdict in verdicts:
        size_px = shown_size(verdict.image.size_px)
        result = client.infer(
            verdict.image.path,
            reference.reference_id,
            overlay=True,
            heatmap_scale=HeatmapScale.CALIBRATED,
            overlay_max_side_px=2 * max(size_px),
            expected_revision=reference.revision,
        )
        if result.overlay is None:
            raise TypeError("The server sent no overlay, although one was requested.")
        overlay = result.overlay.convert("RGB").resize(size_px)
        yield VerdictPicture(verdict, _with_mask_outline(verdict, size_px), overlay, result.timing)


def _with_mask_outline(verdict: Verdict, size_px: tuple[int, int]) -> Image.Image:
    with Image.open(verdict.image.path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I;16"):  # Pillow would clip the brighter values
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("RGB").resize(size_px)
    if verdict.image.mask_path is not None:
        mask = Image.fromarray(read_mask(verdict.image.mask_path)).convert("L").resize(size_px, Image.Resampling.BOX)
        marked = mask.point(lambda share: 255 if share else 0)
        outline = ImageChops.subtract(marked.filter(ImageFilter.MaxFilter(3)), marked)
        image.paste(_MASK_COLOR, mask=outline)
    return image
