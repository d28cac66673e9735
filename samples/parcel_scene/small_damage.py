"""Small damage, a few millimeters in size, painted on the sheet."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parcel_scene.damage import DARK, INNER, Point
from parcel_scene.noise import Array, fractal, smoothstep
from parcel_scene.sheet import PX_PER_MM, Sheet


@dataclass(frozen=True)
class Spot:
    """A part of the sheet, with coordinates around the center of a damage, along its own direction."""

    sheet: Sheet  # views: what is drawn on them is drawn on the whole sheet
    along: Array  # (h, w) mm
    across: Array  # (h, w) mm
    ragged: Array  # (h, w) smooth noise, standard deviation 1

    @property
    def radius(self) -> Array:
        return np.hypot(self.along, self.across)

    def mark(self, damaged: Array) -> None:
        """Add (h, w) 0..1 to the damage of the sheet."""
        np.maximum(self.sheet.damage, damaged, out=self.sheet.damage)


def spot(sheet: Sheet, rng: np.random.Generator, center_mm: Point, heading: float, size_mm: float) -> Spot:
    """The surroundings of a damage of this size; `heading` is the angle of `along` on the sheet."""
    reach = math.ceil((0.8 * size_mm + 2) * PX_PER_MM)
    column, row = (round(mm * PX_PER_MM) for mm in center_mm)
    part = (slice(row - reach, row + reach), slice(column - reach, column + reach))
    steps = (np.arange(2 * reach, dtype=np.float32) + 0.5 - reach) / PX_PER_MM
    x, y = np.meshgrid(steps, steps)
    along, across = x * math.cos(heading) + y * math.sin(heading), y * math.cos(heading) - x * math.sin(heading)
    views = Sheet(sheet.albedo[part], sheet.height_mm[part], sheet.gloss[part], sheet.damage[part])
    return Spot(views, along, across, fractal(rng, x.shape, 1.6 * PX_PER_MM, 3))


def dent(place: Spot, size_mm: float) -> None:
    """The board is pressed in; the liner is stretched pale around the deepest point."""
    sheet, distance = place.sheet, place.radius / size_mm + 0.03 * place.ragged
    sheet.height_mm -= 0.20 * size_mm * np.exp(-((distance / 0.30) ** 2))
    sheet.tint((0.62, 0.60, 0.58), 0.8 * smoothstep(0.34, 0.10, distance))
    sheet.blend(INNER, 0.45 * np.exp(-(((distance - 0.38) / 0.06) ** 2)))
    place.mark(smoothstep(0.49, 0.45, place.radius / size_mm))


def scratch(place: Spot, size_mm: float) -> None:
    """A cut through the liner: pale fibres with a dark edge."""
    sheet, across = place.sheet, place.across + 0.06 * place.ragged + 0.03 * place.along**2 / size_mm
    ends = smoothstep(0.5, 0.42, np.abs(place.along) / size_mm)
    cut = ends * smoothstep(0.55, 0.35, np.abs(across))
    sheet.tint((0.25, 0.22, 0.20), 0.9 * ends * smoothstep(0.40, 0.20, np.abs(across - 0.65)))
    sheet.blend((0.76, 0.61, 0.44), 0.95 * cut)
    sheet.height_mm -= 0.25 * cut
    sheet.gloss *= 1 - cut
    place.mark(ends * smoothstep(0.85, 0.75, np.abs(across - 0.2)))


def tear(place: Spot, size_mm: float) -> None:
    """The liner is open along a line: a pale fringe, the board below, and a dark gap."""
    sheet, along = place.sheet, np.abs(place.along) / (0.5 * size_mm)
    width_mm = 0.20 * size_mm * np.sqrt(np.clip(1 - along**2, 0, 1)) * (1 + 0.25 * place.ragged)
    fringe = smoothstep(0.12, -0.12, np.abs(place.across) - width_mm) * (along < 1)
    bare = smoothstep(0.12, -0.12, np.abs(place.across) - 0.7 * width_mm) * (along < 1)
    gap = smoothstep(0.10, -0.10, np.abs(place.across - 0.25 * width_mm) - 0.3 * width_mm) * (along < 0.9)
    sheet.blend((0.70, 0.54, 0.37), 0.9 * fringe)
    sheet.blend(INNER, 0.8 * bare)
    sheet.blend(DARK, 0.95 * gap)
    sheet.height_mm -= 0.5 * bare
    sheet.gloss *= 1 - fringe
    place.mark(fringe)


def stain(place: Spot, size_mm: float) -> None:
    """A drop of a dark liquid that the paper has absorbed."""
    sheet, distance = place.sheet, place.radius / size_mm + 0.035 * place.ragged
    wet = smoothstep(0.46, 0.38, distance)
    sheet.tint((0.34, 0.28, 0.24), 0.85 * wet)
    sheet.tint((0.70, 0.64, 0.58), 0.6 * np.exp(-(((distance - 0.40) / 0.04) ** 2)))
    place.mark(smoothstep(0.45, 0.41, distance))


def puncture(place: Spot, size_mm: float) -> None:
    """A hole with a fibrous rim."""
    sheet, distance = place.sheet, place.radius / size_mm + 0.045 * place.ragged
    sheet.height_mm -= 0.10 * size_mm * np.exp(-((distance / 0.5) ** 2))
    sheet.blend((0.68, 0.51, 0.34), 0.9 * smoothstep(0.45, 0.38, distance))
    sheet.blend(DARK, smoothstep(0.32, 0.26, distance))
    sheet.gloss *= 1 - smoothstep(0.45, 0.38, distance)
    place.mark(smoothstep(0.45, 0.41, distance))


KINDS: dict[str, Callable[[Spot, float], None]] = {
    "dent": dent,
    "scratch": scratch,
    "tear": tear,
    "stain": stain,
    "puncture": puncture,
}
LONG_KINDS = ("scratch", "tear")
