"""One page with the results of every image."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 2
THUMB_PX = (252, 189)
GAP, MARGIN, HEADER, CAPTION, FRAME = 6, 28, 118, 40, 3
PAGE, PANEL, TEXT, MUTED = "#11151a", "#1b2128", "#eef1f4", "#98a3ae"
GREEN, RED, AMBER = "#2fa66a", "#e5484d", "#f2a33a"
HEADS = ("image", "heat map, calibrated", "heat map, the image's own scale")


@dataclass(frozen=True)
class Cell:
    """An image, its two overlays, its verdict and its numbers."""

    name: str
    images: tuple[Image.Image, Image.Image, Image.Image]
    is_anomalous: bool
    is_right: bool
    numbers: str


def contact_sheet(title: str, subtitle: str, cells: Sequence[Cell]) -> Image.Image:
    """All cells on one page, with a green frame if the verdict is right and a red one if it is wrong."""
    width = len(HEADS) * THUMB_PX[0] + (len(HEADS) - 1) * GAP + 4 * GAP
    height = CAPTION + THUMB_PX[1] + 3 * GAP
    rows = -(-len(cells) // COLUMNS)
    page_px = (
        2 * MARGIN + COLUMNS * width + (COLUMNS - 1) * MARGIN,
        HEADER + rows * (height + MARGIN // 2) + MARGIN,
    )
    page = Image.new("RGB", page_px, PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 22), title, TEXT, _font(30))
    draw.text((MARGIN, 62), subtitle, MUTED, _font(17))
    for position, cell in enumerate(cells):
        row, column = divmod(position, COLUMNS)
        corner = (MARGIN + column * (width + MARGIN), HEADER + row * (height + MARGIN // 2))
        if row == 0:
            _column_heads(draw, corner)
        _draw_cell(page, draw, cell, corner, (width, height))
    return page


def _column_heads(draw: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    for index, head in enumerate(HEADS):
        x = corner[0] + 2 * GAP + index * (THUMB_PX[0] + GAP) + THUMB_PX[0] // 2
        draw.text((x, corner[1] - 8), head, MUTED, _font(14), anchor="ms")


def _draw_cell(
    page: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    left, top = corner
    box = (left, top, left + size[0] - 1, top + size[1] - 1)
    draw.rounded_rectangle(box, radius=10, fill=PANEL, outline=GREEN if cell.is_right else RED, width=FRAME)
    middle = top + 2 + CAPTION // 2
    draw.text((left + 2 * GAP, middle), cell.name, TEXT, _font(19), anchor="lm")
    draw.text((box[2] - 2 * GAP, middle), cell.numbers, MUTED, _font(16), anchor="rm")
    verdict = "anomalous" if cell.is_anomalous else "intact"
    center = left + size[0] // 2 - 60
    half = draw.textlength(verdict, _font(16)) / 2 + 12
    color = AMBER if cell.is_anomalous else GREEN
    draw.rounded_rectangle((center - half, middle - 13, center + half, middle + 13), radius=13, fill=color)
    draw.text((center, middle), verdict, PAGE, _font(16), anchor="mm")
    for index, image in enumerate(cell.images):
        thumb = image.convert("RGB").resize(THUMB_PX, Image.Resampling.LANCZOS)
        page.paste(thumb, (left + 2 * GAP + index * (THUMB_PX[0] + GAP), top + CAPTION + GAP))


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)
