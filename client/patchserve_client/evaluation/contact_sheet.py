"""A contact sheet of the largest mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from patchserve_client._verdicts import ratio_text
from patchserve_client.evaluation.run import Verdict
from patchserve_client.evaluation.sheet_layout import GAP_PX, MARGIN_PX, Page, Place
from patchserve_client.evaluation.verdict_pictures import VerdictPicture

_PAGE_COLOR, _TEXT_COLOR, _MUTED_COLOR = "#ffffff", "#1d2227", "#66707a"
_KIND_COLORS = {"correct": "#2c8a56", "missed": "#c8303a", "false alarm": "#c8303a"}


def draw_mistakes(pictures: Sequence[VerdictPicture], verdicts: Sequence[Verdict], path: Path) -> None:
    """Draw the images with the largest mistakes next to their overlays. `verdicts` are all, for the title."""
    page = Page.of([picture.image.size for picture in pictures])
    sheet = Image.new("RGB", page.size_px, _PAGE_COLOR)
    draw = ImageDraw.Draw(sheet)
    for picture, place in zip(pictures, page.places, strict=True):
        _draw_caption(draw, picture.verdict, place)
        sheet.paste(picture.image, (place.left_px, place.image_top_px))
        sheet.paste(picture.overlay, (place.left_px + place.image_px[0] + GAP_PX, place.image_top_px))
    _draw_title(draw, verdicts, sheet.width - 2 * MARGIN_PX)
    sheet.save(path)


def _draw_title(draw: ImageDraw.ImageDraw, verdicts: Sequence[Verdict], width_px: int) -> None:
    mistakes, total = sum(not verdict.is_correct for verdict in verdicts), len(verdicts)
    verb = "is" if mistakes == 1 else "are"
    title = f"{mistakes} of {total} verdicts {verb} wrong" if mistakes else f"All {total} verdicts are right"
    order = "The largest mistakes, then the" if mistakes else "The"
    mask = ", its mask outlined" if any(verdict.image.mask_path for verdict in verdicts) else ""
    legend = (
        f"{order} verdicts closest to the threshold. "
        f"Left: the image{mask}. Right: what was found; yellow to red is above the threshold."
    )
    draw.text((MARGIN_PX, 18), title, _TEXT_COLOR, _font(22))
    draw.text((MARGIN_PX, 50), _shortened(legend, _font(13), width_px), _MUTED_COLOR, _font(13))


def _draw_caption(draw: ImageDraw.ImageDraw, verdict: Verdict, place: Place) -> None:
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
