"""Pictures for people: an overlay below a header with the verdict and the color scale. Drawn with Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from patchserve_client._choices import HeatmapScale
from patchserve_client._color_scale import scale_colors
from patchserve_client._types import InferenceResult
from patchserve_client._verdicts import verdict_text

if TYPE_CHECKING:  # the first picture loads Pillow
    from PIL import Image, ImageDraw, ImageFont

ANNOTATED_MAX_SIDE_PX = 2048
"""The default size of such a picture: sharp on a large screen, and still small enough to send and to open."""

_MIN_WIDTH_PX = 360  # a narrower overlay is enlarged or has margins, so that the header is readable
_FONT_PX = (14, 64)  # the smallest and the largest; between them it grows with the picture
_BACKGROUND, _TEXT, _MUTED = "#15191e", "#ffffff", "#b6bfc8"
_VERDICT_COLORS = {True: "#c8303a", False: "#2c8a56"}  # by is_anomalous
_LABEL_ANCHORS = {0.0: "lm", 1.0: "rm"}  # by position on the scale


def annotated(result: InferenceResult, scale: HeatmapScale, threshold: float = 1.0) -> Image.Image:
    """The overlay of a result below a header: the verdict on the left, the color scale on the right.

    Args:
        result: with an overlay.
        scale: the color scale of that overlay.
        threshold: as in `ratio_text`.

    Raises:
        ValueError: the result has no overlay.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - loaded on first use

    overlay = result.overlay
    if overlay is None:
        raise ValueError("The result has no overlay. Request one with overlay=True.")
    pixels = _enlarged(overlay.convert("RGB"))
    width_px = max(pixels.width, _MIN_WIDTH_PX)
    header = _Header.above(width_px, pixels.height)
    picture = Image.new("RGB", (width_px, header.height_px + pixels.height), _BACKGROUND)
    picture.paste(pixels, ((width_px - pixels.width) // 2, header.height_px))
    draw = ImageDraw.Draw(picture)
    free_from_px = _draw_verdict(draw, header, result, threshold)
    _draw_legend(picture, draw, header, free_from_px, _Legend.of(result, scale, threshold))
    return picture


def _enlarged(overlay: Image.Image) -> Image.Image:
    """A narrow overlay as wide as a header, unless it would become too high."""
    from PIL import Image  # noqa: PLC0415 - loaded on first use

    factor = min(_MIN_WIDTH_PX / overlay.width, ANNOTATED_MAX_SIDE_PX / overlay.height)
    if factor <= 1:
        return overlay
    size_px = (max(1, round(overlay.width * factor)), max(1, round(overlay.height * factor)))
    return overlay.resize(size_px, Image.Resampling.BICUBIC)


@dataclass(frozen=True, slots=True)
class _Header:
    """The sizes of a header, in pixels."""

    width_px: int
    height_px: int
    font_px: int

    @classmethod
    def above(cls, width_px: int, height_px: int) -> _Header:
        """The header above a picture of this size."""
        smallest, largest = _FONT_PX
        font_px = max(smallest, min(width_px // 32, height_px // 10, largest))
        return cls(width_px, 3 * font_px, font_px)

    @property
    def margin_px(self) -> int:
        return self.font_px // 2


@dataclass(frozen=True, slots=True)
class _Legend:
    """What the color scale says. Positions are 0 to 1, from cold to hot."""

    scale: HeatmapScale
    labels: dict[float, str]  # by position
    marker: float | None  # the position of the image; None: this scale says nothing about it

    @classmethod
    def of(cls, result: InferenceResult, scale: HeatmapScale, threshold: float) -> _Legend:
        if scale is HeatmapScale.RELATIVE:
            return cls(scale, {0.0: "lowest here", 1.0: "highest here"}, None)
        labels = {0.0: "0", 0.5: f"{threshold:.3g} x", 1.0: f"{2 * threshold:.3g} x"}
        return cls(scale, labels, min(result.anomaly.ratio / 2, 1.0))


def _draw_verdict(draw: ImageDraw.ImageDraw, header: _Header, result: InferenceResult, threshold: float) -> int:
    """Draw the verdict, and return where the rest of the header begins."""
    text, font = verdict_text(result.anomaly, threshold), _font(header.font_px)
    end_px = round(draw.textlength(text, font)) + 2 * header.margin_px
    draw.rectangle((0, 0, end_px - 1, header.height_px - 1), _VERDICT_COLORS[result.anomaly.is_anomalous])
    draw.text((header.margin_px, header.height_px // 2), text, _TEXT, font, anchor="lm")
    return end_px


def _draw_legend(
    picture: Image.Image, draw: ImageDraw.ImageDraw, header: _Header, free_from_px: int, legend: _Legend
) -> None:
    """Draw the color scale at the right end of the header. Draws nothing if the labels do not fit."""
    from PIL import Image  # noqa: PLC0415 - loaded on first use

    font, margin_px = _font(max(11, round(0.7 * header.font_px))), header.margin_px
    end_px = header.width_px - 2 * margin_px
    start_px = max(free_from_px + 2 * margin_px, end_px - 18 * header.font_px)
    width_px = end_px - start_px
    if width_px < sum(draw.textlength(label, font) + 2 * margin_px for label in legend.labels.values()):
        return
    top_px, bottom_px, labels_px = (round(share * header.height_px) for share in (0.28, 0.5, 0.76))
    colors = Image.fromarray(scale_colors(legend.scale, width_px)[None])  # one row of pixels
    picture.paste(colors.resize((width_px, bottom_px - top_px)), (start_px, top_px))
    for position, label in legend.labels.items():
        x_px = start_px + round(position * (width_px - 1))
        draw.text((x_px, labels_px), label, _MUTED, font, _LABEL_ANCHORS.get(position, "mm"))
        if position not in _LABEL_ANCHORS:
            draw.line((x_px, top_px, x_px, bottom_px + margin_px // 2), _TEXT, max(1, header.font_px // 14))
    if legend.marker is not None:
        x_px, half_px = start_px + round(legend.marker * (width_px - 1)), max(3, header.font_px // 4)
        triangle = [(x_px - half_px, top_px - 2 * half_px), (x_px + half_px, top_px - 2 * half_px), (x_px, top_px)]
        draw.polygon(triangle, _TEXT)


@lru_cache(maxsize=8)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont  # noqa: PLC0415 - loaded on first use

    return ImageFont.load_default(size=size_px)
