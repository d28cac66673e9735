"""A contact sheet of the largest mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from patchserve_client import Client, HeatmapScale, ReferenceInfo
from patchserve_client._verdicts import ratio_text
from patchserve_client.evaluation.dataset import read_mask
from patchserve_client.evaluation.run import Verdict

_PAGE_ASPECT = 1.4  # width / height
_MIN_PAGE_PX, _MAX_PAGE_PX, _PAGE_STEP_PX = 900, 3200, 20
_IMAGE_HEIGHT_PX = 220
_MIN_IMAGE_WIDTH_PX, _MAX_IMAGE_WIDTH_PX = 110, 420
_GAP_PX, _MARGIN_PX, _CAPTION_PX, _HEADER_PX = 4, 20, 44, 84
_ROW_PX = _CAPTION_PX + _IMAGE_HEIGHT_PX + _MARGIN_PX
_PAGE_COLOR, _TEXT_COLOR, _MUTED_COLOR = "#ffffff", "#1d2227", "#66707a"
_KIND_COLORS = {"correct": "#2c8a56", "missed": "#c8303a", "false alarm": "#c8303a"}
_MASK_COLOR = "#ffffff"


def worst_verdicts(verdicts: Sequence[Verdict], count: int = 12) -> list[Verdict]:
    """The mistakes, the largest first, then the correct verdicts closest to the threshold."""
    return sorted(verdicts, key=lambda verdict: verdict.margin)[:count]


def draw_mistakes(client: Client, reference: ReferenceInfo, verdicts: Sequence[Verdict], path: Path) -> None:
    """Draw the images with the largest mistakes next to their overlays in the calibrated scale. Masks are outlined.

    Raises:
        PatchserveError: the server returns no overlay.
    """
    shown = worst_verdicts(verdicts)
    page = _Page.of([verdict.image.size_px for verdict in shown])
    sheet = Image.new("RGB", page.size_px, _PAGE_COLOR)
    draw = ImageDraw.Draw(sheet)
    for verdict, place in zip(shown, page.places, strict=True):
        _draw_caption(draw, verdict, place)
        sheet.paste(_with_mask_outline(verdict, place.image_px), (place.left_px, place.image_top_px))
        overlay = _overlay(client, reference, verdict, max(place.image_px)).resize(place.image_px)
        sheet.paste(overlay, (place.left_px + place.image_px[0] + _GAP_PX, place.image_top_px))
    _draw_title(draw, verdicts, sheet.width - 2 * _MARGIN_PX)
    sheet.save(path)


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of an image and its overlay side by side, below their caption, in pixels of the page."""

    left_px: int
    top_px: int
    image_px: tuple[int, int]  # (width, height) of either

    @property
    def width_px(self) -> int:
        return 2 * self.image_px[0] + _GAP_PX

    @property
    def image_top_px(self) -> int:
        return self.top_px + _CAPTION_PX


@dataclass(frozen=True, slots=True)
class _Page:
    """Pairs in rows from the top left."""

    places: tuple[_Place, ...]

    @classmethod
    def of(cls, sizes_px: Sequence[tuple[int, int]]) -> _Page:
        """The page for images of these sizes with the best shape."""
        images_px = [_shown_size(size_px) for size_px in sizes_px]
        widest_px = max(2 * width_px + _GAP_PX for width_px, _ in images_px)
        limits_px = range(max(_MIN_PAGE_PX, widest_px), _MAX_PAGE_PX, _PAGE_STEP_PX)
        return min((cls._filled(images_px, limit_px) for limit_px in limits_px), key=lambda page: page.ugliness)

    @classmethod
    def _filled(cls, images_px: Sequence[tuple[int, int]], limit_px: int) -> _Page:
        """Rows of at most `limit_px`, without the margins."""
        places, left_px, top_px = [], 0, _HEADER_PX
        for image_px in images_px:
            if left_px + 2 * image_px[0] + _GAP_PX > limit_px:
                left_px, top_px = 0, top_px + _ROW_PX
            places.append(_Place(_MARGIN_PX + left_px, top_px, image_px))
            left_px += places[-1].width_px + _MARGIN_PX
        return cls(tuple(places))

    @property
    def size_px(self) -> tuple[int, int]:
        right_px = max(place.left_px + place.width_px for place in self.places)
        return max(right_px, _MIN_PAGE_PX) + _MARGIN_PX, self.places[-1].top_px + _ROW_PX

    @property
    def ugliness(self) -> float:
        """How far the page is from a pleasant shape, and the share that stays empty; 0: as it should be."""
        width_px, height_px = self.size_px
        used_px = sum((place.width_px + _MARGIN_PX) * _ROW_PX for place in self.places)
        empty = 1 - used_px / (width_px * (height_px - _HEADER_PX))
        return abs(math.log(width_px / height_px / _PAGE_ASPECT)) / 2 + empty


def _shown_size(size_px: tuple[int, int]) -> tuple[int, int]:
    """As high as the row, but not wider than _MAX_IMAGE_WIDTH_PX."""
    width_px, height_px = size_px
    scale = min(_IMAGE_HEIGHT_PX / height_px, _MAX_IMAGE_WIDTH_PX / width_px)
    return max(_MIN_IMAGE_WIDTH_PX, round(width_px * scale)), max(1, round(height_px * scale))


def _draw_title(draw: ImageDraw.ImageDraw, verdicts: Sequence[Verdict], width_px: int) -> None:
    mistakes, total = sum(not verdict.is_correct for verdict in verdicts), len(verdicts)
    title = f"{mistakes} of {total} verdicts are wrong" if mistakes else f"All {total} verdicts are right"
    order = "The largest mistakes, then the" if mistakes else "The"
    legend = (
        f"{order} verdicts closest to the threshold. "
        "Left: the image, its mask outlined. Right: what was found; yellow to red is above the threshold."
    )
    draw.text((_MARGIN_PX, 18), title, _TEXT_COLOR, _font(22))
    draw.text((_MARGIN_PX, 50), _shortened(legend, _font(13), width_px), _MUTED_COLOR, _font(13))


def _overlay(client: Client, reference: ReferenceInfo, verdict: Verdict, side_px: int) -> Image.Image:
    result = client.infer(
        verdict.image.path,
        reference.reference_id,
        overlay=True,
        heatmap_scale=HeatmapScale.CALIBRATED,
        overlay_max_side_px=2 * side_px,
        expected_revision=reference.revision,
    )
    if result.overlay is None:
        raise TypeError("The server sent no overlay, although one was requested.")
    return result.overlay.convert("RGB")


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


def _draw_caption(draw: ImageDraw.ImageDraw, verdict: Verdict, place: _Place) -> None:
    color, text = _KIND_COLORS[verdict.kind], f"{verdict.kind}: {ratio_text(verdict.anomaly)}"
    draw.text((place.left_px, place.top_px), text, color, _font(15))
    name = _shortened(verdict.image.name, _font(13), place.width_px)
    draw.text((place.left_px, place.top_px + 22), name, _TEXT_COLOR, _font(13))


def _shortened(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """The text, or its beginning and its end if it is too long."""
    half = len(text)
    shown = text
    while font.getlength(shown) > width_px and half > 1:
        half -= 1
        shown = text if 2 * half >= len(text) else f"{text[:half]}…{text[-half:]}"
    return shown


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's font, which knows more scripts than Pillow's."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size_px)
