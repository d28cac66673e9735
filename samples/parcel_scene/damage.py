"""Kinds of damage. Three of them are painted on the sheet; a crushed corner bends the mesh."""

import math
from collections.abc import Callable

import cv2
import numpy as np

from parcel_scene.cardboard import FLUTE_MM, PALE
from parcel_scene.geometry import Deformation
from parcel_scene.noise import Array, fractal, smoothstep
from parcel_scene.sheet import (
    HEIGHT_MM,
    LENGTH_MM,
    PX_PER_MM,
    SHAPE,
    WIDTH_MM,
    Sheet,
    blurred,
    grid_mm,
    polygon,
    stroke,
)

INNER = (0.56, 0.385, 0.225)
DARK = (0.012, 0.009, 0.007)
Point = tuple[float, float]


def crushed_corner(rng: np.random.Generator, corner: tuple[int, int], depth_mm: float) -> Deformation:
    """An upper corner, pressed in along its diagonal; the board around it is folded and buckled.

    `corner` has the signs of its x (right) and y (rear).
    """
    position = np.array((corner[0] * LENGTH_MM / 2, corner[1] * WIDTH_MM / 2, HEIGHT_MM))
    inward = np.array((-corner[0] * 0.60, -corner[1] * 0.45, -0.66))
    level = np.cross(inward, (0.0, 0.0, 1.0))
    chart = np.stack([level / np.linalg.norm(level), np.cross(inward, level) / np.linalg.norm(level)], axis=1)  # (3, 2)
    creases = [_crease(rng, depth_mm) for _ in range(11)]

    def displace(rest: Array) -> Array:
        spot = (rest - position) @ chart  # seen along the blow, the three sides are next to each other
        fold = sum((crease(spot) for crease in creases), np.zeros(spot.shape[:-1]))
        reach = (rest - position) @ inward  # mm behind the corner
        pressed = np.clip(depth_mm - reach + 0.9 * fold, 0, None) * 0.78
        buckled = smoothstep(2.1 * depth_mm, 0.8 * depth_mm, reach)
        return (pressed + 0.55 * buckled * fold)[..., None] * inward

    return displace


def _crease(rng: np.random.Generator, depth_mm: float) -> Callable[[Array], Array]:
    """One fold line near the dent: a sharp ridge or valley that fades towards its ends and sides."""
    heading, place = rng.uniform(0, np.pi), rng.normal(0, 0.75 * depth_mm, 2)
    length_mm, width_mm = rng.uniform(0.6, 1.3) * depth_mm, rng.uniform(0.2, 0.5) * depth_mm
    height_mm = rng.choice((-1, 1)) * rng.uniform(0.10, 0.22) * depth_mm
    along = np.array((math.cos(heading), math.sin(heading)))
    across = np.array((-along[1], along[0]))

    def relief(spot: Array) -> Array:
        t, d = (spot - place) @ along, np.abs((spot - place) @ across)
        return height_mm * np.clip(1 - d / width_mm, 0, 1) * np.exp(-((t / length_mm) ** 2))

    return relief


def tear(sheet: Sheet, rng: np.random.Generator, start_mm: Point, end_mm: Point, width_mm: float) -> None:
    """The liner, torn open along a line: torn fibres, the bare flutes below, and a dark gap."""
    x, y = grid_mm()
    spine = _ragged(rng, start_mm, end_mm, 40, 0.06)
    across = _across(spine)
    opening = np.sin(np.pi * np.linspace(0, 1, 40)) ** 0.7
    bare = _band(rng, spine, across, width_mm * opening, 0.35)
    fringe = _band(rng, spine, across, width_mm * opening + 2.2 * (opening > 0.1), 0.5)
    gap = _band(rng, spine + 0.10 * width_mm * across, across, 0.42 * width_mm * opening**1.5, 0.5)
    curl = _band(rng, spine - 1.15 * width_mm * opening[:, None] * across, across, 0.42 * width_mm * opening, 0.3)

    shadow = blurred(np.roll(curl, (round(2.2 * PX_PER_MM), round(1.4 * PX_PER_MM)), (0, 1)), 1.2)
    sheet.tint((0.35, 0.32, 0.30), 0.75 * shadow * (1 - curl))
    sheet.blend((0.70, 0.54, 0.37), 0.85 * fringe)
    wave = np.cos(np.where(x < LENGTH_MM, x, y) * (2 * np.pi / FLUTE_MM)).astype(np.float32)
    fuzz = fractal(rng, SHAPE, 2.5 * PX_PER_MM, 3)
    sheet.blend(np.asarray(INNER, np.float32) * (0.82 + 0.22 * wave + 0.10 * fuzz)[..., None], bare)
    sheet.height_mm += bare * (0.7 * wave + 0.10 * fuzz - 1.2)
    sheet.blend((0.64, 0.47, 0.30), 0.9 * curl)
    sheet.height_mm += 1.1 * blurred(curl, 1.2) + 0.08 * curl * fuzz
    sheet.blend(DARK, blurred(gap, 0.2))
    sheet.gloss *= 1 - np.maximum(fringe, curl)
    _fibre_ends(sheet, rng, spine, across, width_mm * opening)
    sheet.damage = np.maximum(sheet.damage, np.maximum.reduce([fringe, gap, curl, 0.8 * shadow]))


def _fibre_ends(sheet: Sheet, rng: np.random.Generator, spine: Array, across: Array, half_mm: Array) -> None:
    """Single fibres that stick out from both edges."""
    ends = np.zeros(SHAPE, np.uint8)
    for _ in range(110):
        i, sign = rng.integers(3, len(spine) - 3), rng.choice((-1, 1))
        root = spine[i] + sign * half_mm[i] * across[i] + rng.normal(0, 0.7, 2)
        tip = root + rng.normal(0, 1.6, 2) - sign * rng.uniform(0, 3.0) * across[i]
        (x0, y0), (x1, y1) = np.round(np.array([root, tip]) * PX_PER_MM * 16).astype(int).tolist()
        cv2.line(ends, (x0, y0), (x1, y1), rng.uniform(100, 230), 1, cv2.LINE_AA, shift=4)
    sheet.blend((0.74, 0.58, 0.42), blurred(ends.astype(np.float32) / 255, 0.1))


def puncture(sheet: Sheet, rng: np.random.Generator, center_mm: Point, radius_mm: float) -> None:
    """A hole: the board around it is pushed inward, the cracked liner is bent into it, the rim is fibrous."""
    x, y = grid_mm()
    center = np.array(center_mm)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 26))
    ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    size = radius_mm * (0.72 + 0.28 * rng.beta(1.2, 1.2, 26))
    hole = polygon(center + ray * size[:, None])
    rim = polygon(center + ray * (size + rng.uniform(1.2, 4.0, 26))[:, None])
    from_center = np.hypot(x - center[0], y - center[1])

    sheet.height_mm -= 0.45 * radius_mm * np.exp(-((from_center / (1.45 * radius_mm)) ** 2))
    ring = blurred(rim, 1.0) - blurred(hole, 1.0)
    sheet.height_mm += 1.3 * np.clip(ring, 0, 1)
    sheet.blend((0.68, 0.51, 0.34), 0.85 * rim * (1 - hole))
    # The thickness of the board is visible on the side of the hole that faces the lamp; the rest is dark.
    wall = hole * (
        1 - np.roll(hole, (round(-0.28 * radius_mm * PX_PER_MM), round(-0.20 * radius_mm * PX_PER_MM)), (0, 1))
    )
    sheet.blend(DARK, hole)
    sheet.blend(np.asarray(INNER, np.float32) * 0.42, 0.9 * blurred(wall, 0.3))
    for _ in range(6):
        _petal(sheet, rng, center, radius_mm)
    cracks = np.zeros(SHAPE, np.float32)
    for heading in rng.uniform(0, 2 * np.pi, 6):
        length_mm = radius_mm * rng.uniform(0.5, 1.25)
        steps = np.linspace(0.85 * radius_mm, radius_mm + length_mm, 9)[:, None]
        line = center + steps * np.array((math.cos(heading), math.sin(heading))) + rng.normal(0, 0.6, (9, 2))
        cracks = np.maximum(cracks, stroke(line, 0.5, 0.2))
    sheet.tint((0.30, 0.27, 0.25), 0.8 * cracks)
    sheet.blend(PALE, 0.5 * np.clip(np.roll(cracks, (2, 2), (0, 1)) - cracks, 0, 1))
    sheet.gloss *= 1 - rim
    dent = smoothstep(1.5 * radius_mm, 1.3 * radius_mm, from_center)
    sheet.damage = np.maximum.reduce([sheet.damage, rim, hole, dent, blurred(cracks, 0.5) * 2]).clip(0, 1)


def _petal(sheet: Sheet, rng: np.random.Generator, center: Array, radius_mm: float) -> None:
    """A piece of liner that is folded into the hole."""
    heading, width = rng.uniform(0, 2 * np.pi), rng.uniform(0.18, 0.4)
    ends = [
        center + 0.95 * radius_mm * np.array((math.cos(heading + w), math.sin(heading + w))) for w in (-width, width)
    ]
    tip = center + rng.uniform(0.25, 0.6) * radius_mm * np.array((math.cos(heading), math.sin(heading)))
    tongue = polygon(np.array([ends[0], tip, ends[1]]), 0.25)
    lit = 0.30 + 0.45 * max(0.0, math.cos(heading - math.radians(50)))
    sheet.blend(tuple(lit * c for c in INNER), 0.92 * tongue)


def stain(
    sheet: Sheet, rng: np.random.Generator, blots: list[tuple[float, float, float, float]], strength: float
) -> None:
    """A liquid stain: dark inside, darker near the edge, with a soft edge.

    `blots` are x, y, width and height in mm.
    """
    x, y = grid_mm()
    field = np.full(SHAPE, -9.0, np.float32)
    for center_x, center_y, width, height in blots:
        distance = np.hypot((x - center_x) / (width / 2), (y - center_y) / (height / 2))
        field = np.maximum(field, 1 - distance)
    field += 0.10 * fractal(rng, SHAPE, 26 * PX_PER_MM, 4) + 0.018 * fractal(rng, SHAPE, 3 * PX_PER_MM, 3)
    wet = smoothstep(-0.05, 0.10, field)
    tide = np.exp(-(((field - 0.07) / 0.07) ** 2))
    cloudy = 1 + 0.10 * fractal(rng, SHAPE, 15 * PX_PER_MM, 3)
    porous = 1 - 0.55 * np.clip(sheet.gloss * 1.5, 0, 1)  # film and coated paper absorb less
    sheet.tint((0.42, 0.35, 0.29), np.clip(strength * wet * cloudy * porous, 0, 1))
    sheet.tint((0.62, 0.55, 0.48), 0.6 * strength * tide * porous)
    sheet.gloss = np.maximum(sheet.gloss, 0.28 * smoothstep(0.15, 0.5, field))
    sheet.height_mm += 0.10 * wet * fractal(rng, SHAPE, 12 * PX_PER_MM, 2)
    sheet.damage = np.maximum(sheet.damage, smoothstep(-0.06, 0.02, field))


def _ragged(rng: np.random.Generator, start: Point, end: Point, count: int, jag: float) -> Array:
    """An irregular line from start to end: (count, 2)."""
    a, b = np.array(start), np.array(end)
    t = np.linspace(0, 1, count)
    wander = cv2.GaussianBlur(rng.standard_normal((1, count)), (0, 0), 2.0, borderType=cv2.BORDER_REFLECT)[0]
    wander = (wander * 1.6 + 0.35 * rng.standard_normal(count)) * np.sin(np.pi * t)
    sideways = np.array((-(b - a)[1], (b - a)[0]))
    return a + t[:, None] * (b - a) + jag * wander[:, None] * sideways


def _across(spine: Array) -> Array:
    along = np.gradient(cv2.blur(spine, (1, 7)), axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def _band(rng: np.random.Generator, spine: Array, across: Array, half_mm: Array, jag: float) -> Array:
    """A strip around a line with two torn edges: (H, W) 0..1."""
    lips = []
    for sign in (1, -1):
        ragged = half_mm * (1 + jag * rng.uniform(-1, 1, len(spine)))
        lips.append(spine + sign * ragged[:, None] * across)
    return polygon(np.concatenate([lips[0], lips[1][::-1]]))
