"""Things on the box: packing tape, the shipping label, printed handling symbols, a sticker."""

import math

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from parcel_scene.noise import Array, fractal
from parcel_scene.sheet import LENGTH_MM, PX_PER_MM, SHAPE, WIDTH_MM, Sheet, blurred, polygon, stroke


def tape(sheet: Sheet, rng: np.random.Generator, folds: int) -> None:
    """A strip of brown film along the seam and down the right side, with a serrated end."""
    center_mm, half_mm = WIDTH_MM / 2 + rng.normal(0, 1.2), 25.0
    skew_mm, end_mm = rng.normal(0, 1.0), LENGTH_MM + 58 + rng.normal(0, 2.5)
    teeth = np.arange(-half_mm, half_mm + 0.1, 1.25)
    serrated = np.stack([end_mm + 1.3 * (np.arange(len(teeth)) % 2), center_mm + skew_mm + teeth], axis=1)
    outline = np.concatenate([[[-2.0, center_mm + half_mm - skew_mm], [-2.0, center_mm - half_mm - skew_mm]], serrated])
    film = polygon(outline)
    rim = np.clip(film - blurred(film, 0.5), 0, 1)
    sheet.blend((0.40, 0.205, 0.085), 0.55 * film)
    sheet.tint((0.88, 0.83, 0.76), film)
    sheet.blend((0.62, 0.45, 0.28), 0.5 * rim)
    sheet.height_mm *= 1 - 0.6 * film
    sheet.height_mm += 0.05 * film + film * _wrinkles(rng, center_mm, half_mm, folds)
    sheet.gloss += (1 - sheet.gloss) * film


def _wrinkles(rng: np.random.Generator, center_mm: float, half_mm: float, folds: int) -> Array:
    """Relief of a film: waves along it, air below, and the folds across it of one that was applied by hand."""
    relief = 0.05 * fractal(rng, SHAPE, 22 * PX_PER_MM, 3) + 0.010 * fractal(rng, SHAPE, 4 * PX_PER_MM, 2)
    for _ in range(folds):
        start = np.array((rng.uniform(5, LENGTH_MM + 50), center_mm + rng.uniform(-1, 1) * half_mm))
        heading, length_mm = rng.normal(math.pi / 2, 0.5), rng.uniform(8, 30)
        crease = start + np.linspace(0, length_mm, 8)[:, None] * np.array((math.cos(heading), math.sin(heading)))
        crease += rng.normal(0, 0.5, crease.shape)
        relief += rng.uniform(0.08, 0.2) * stroke(crease, 0.5, 0.5)
    return relief


def paste(sheet: Sheet, art: Image.Image, center_mm: tuple[float, float], angle_deg: float) -> Array:
    """Draw an image (RGBA, sRGB, at PX_PER_MM) on the sheet, turned about its center; returns its alpha (H, W)."""
    pixels = np.asarray(art, np.float32) / 255
    color, alpha = pixels[..., :3] ** 2.2, pixels[..., 3:]
    turn = cv2.getRotationMatrix2D((art.width / 2, art.height / 2), angle_deg, 1.0)
    turn[:, 2] += np.array(center_mm) * PX_PER_MM - (art.width / 2, art.height / 2)
    layer = cv2.warpAffine(
        np.concatenate([color * alpha, alpha], axis=2), turn, (SHAPE[1], SHAPE[0]), flags=cv2.INTER_AREA
    )
    sheet.albedo *= 1 - layer[..., 3:]
    sheet.albedo += layer[..., :3]
    covered: Array = layer[..., 3]
    return covered


def shipping_label(sheet: Sheet, rng: np.random.Generator) -> None:
    """A thermal label on the front flap."""
    angle = rng.normal(0, 0.9)
    center = (218 + rng.normal(0, 1.5), 192 + rng.normal(0, 1.2))
    paper = paste(sheet, _label_art(rng), center, angle)
    sheet.height_mm *= 1 - 0.7 * paper
    sheet.height_mm += 0.12 * paper + 0.03 * paper * fractal(rng, SHAPE, 30 * PX_PER_MM, 2)
    sheet.tint((0.55, 0.52, 0.5), 0.6 * np.clip(blurred(paper, 0.8) - paper, 0, 1))
    sheet.gloss = np.maximum(sheet.gloss * (1 - paper), 0.22 * paper)


def _label_art(rng: np.random.Generator) -> Image.Image:
    scale = PX_PER_MM
    width, height = 112 * scale, 76 * scale
    art = Image.new("RGBA", (width, height), (228, 228, 223, 255))
    draw = ImageDraw.Draw(art)
    ink = (28, 28, 30, 255)

    def text(x_mm: float, y_mm: float, size_mm: float, words: str, weight: int = 0) -> None:
        font = ImageFont.load_default(size=size_mm * scale)
        draw.text((x_mm * scale, y_mm * scale), words, ink, font, stroke_width=weight, stroke_fill=ink)

    def line(x0: float, y0: float, x1: float, y1: float, thickness_mm: float = 0.5) -> None:
        draw.line([x0 * scale, y0 * scale, x1 * scale, y1 * scale], ink, round(thickness_mm * scale))

    line(0, 17, 112, 17)
    line(70, 17, 70, 44)
    line(0, 44, 112, 44, 0.8)
    text(4, 2.5, 11, "PARCEL", 2)
    text(60, 4, 4, f"Nr {rng.integers(10**8, 10**9)}")
    text(60, 10, 4, f"{rng.uniform(1, 6):.2f} kg   1/1")
    for row, words in enumerate(("To:", "M. Sample", "12 Harbour Street", "4020 Linden")):
        text(4, 19 + 6 * row, 4.8 if row else 3.6, words)
    text(76, 20, 15, f"{rng.integers(1, 9)}{'ABCDEFGH'[rng.integers(8)]}", 3)
    _barcode(draw, rng, (8 * scale, 47 * scale, 104 * scale, 67 * scale), ink)
    text(24, 69, 4.2, " ".join(str(rng.integers(1000, 9999)) for _ in range(4)))
    return art


def _barcode(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    box_px: tuple[int, int, int, int],
    ink: tuple[int, int, int, int],
) -> None:
    x, top, right, bottom = box_px
    while x < right:
        bar, gap = (2 * int(n) for n in rng.choice([1, 2, 3, 4], 2, p=[0.45, 0.3, 0.15, 0.1]))
        draw.rectangle([x, top, min(x + bar - 1, right), bottom], ink)
        x += bar + gap


def handling_marks(sheet: Sheet, rng: np.random.Generator) -> None:
    """Symbols printed on the front, always in the same place, in ink that is partly absorbed by the paper."""
    scale = PX_PER_MM
    art = Image.new("RGBA", (120 * scale, 48 * scale), (78, 60, 48, 0))
    draw = ImageDraw.Draw(art)
    ink = (76, 56, 44, 225)

    def shape(points_mm: list[tuple[float, float]]) -> None:
        draw.polygon([(x * scale, y * scale) for x, y in points_mm], ink)

    for x in (4, 18):  # this way up
        shape([(x, 14), (x + 5, 4), (x + 10, 14), (x + 6.8, 14), (x + 6.8, 34), (x + 3.2, 34), (x + 3.2, 14)])
    shape([(3, 37), (29, 37), (29, 39.5), (3, 39.5)])
    shape([(46, 4), (64, 4), (62.5, 17), (47.5, 17)])  # fragile: a glass
    shape([(47.5, 17), (62.5, 17), (56.8, 21.5), (56.8, 34), (53.2, 34), (53.2, 21.5)])
    shape([(53.2, 34), (56.8, 34), (62, 37), (62, 39.5), (48, 39.5), (48, 37)])
    draw.pieslice([80 * scale, 5 * scale, 110 * scale, 35 * scale], 180, 360, ink)  # keep dry
    shape([(94.2, 19), (95.8, 19), (95.8, 36), (94.2, 36)])
    draw.arc([87.8 * scale, 31 * scale, 95.8 * scale, 39.5 * scale], 0, 180, ink, round(1.6 * scale))
    before = sheet.albedo.copy()
    covered = paste(sheet, art, (86, WIDTH_MM + 106), 0)
    bare = covered * np.clip(0.18 + 0.12 * fractal(rng, SHAPE, 1.5 * PX_PER_MM, 3), 0, 0.8)
    sheet.albedo += (before - sheet.albedo) * bare[..., None]


def sticker(sheet: Sheet, rng: np.random.Generator) -> None:
    """A red sticker on the front, applied by hand."""
    scale = PX_PER_MM
    art = Image.new("RGBA", (78 * scale, 44 * scale), (196, 40, 34, 255))
    draw = ImageDraw.Draw(art)
    white = (240, 236, 230, 255)
    draw.rectangle([0, 22 * scale, 78 * scale, 44 * scale], white)
    draw.text(
        (6 * scale, 3 * scale),
        "FRAGILE",
        white,
        ImageFont.load_default(size=16 * scale),
        stroke_width=2,
        stroke_fill=white,
    )
    draw.text((7 * scale, 25 * scale), "handle with care", (30, 26, 26, 255), ImageFont.load_default(size=8.6 * scale))
    covered = paste(sheet, art, (246 + rng.normal(0, 1.5), WIDTH_MM + 74 + rng.normal(0, 1.2)), 7 + rng.normal(0, 1.2))
    sheet.height_mm *= 1 - 0.8 * covered
    sheet.height_mm += 0.1 * covered
    sheet.tint((0.6, 0.57, 0.55), 0.5 * np.clip(blurred(covered, 0.7) - covered, 0, 1))
    sheet.gloss = np.maximum(sheet.gloss * (1 - covered), 0.2 * covered)
