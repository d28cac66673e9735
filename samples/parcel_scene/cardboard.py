"""The bare box: kraft liner over corrugated board, with its flaps, edges and wear."""

import numpy as np

from parcel_scene.noise import Array, fibres, fractal, smoothstep
from parcel_scene.sheet import HEIGHT_MM, LENGTH_MM, PX_PER_MM, SHAPE, WIDTH_MM, Sheet, blurred, grid_mm, stroke

KRAFT = (0.47, 0.275, 0.135)
PALE = (0.60, 0.40, 0.225)
FLUTE_MM = 7.8


def bare_box(rng: np.random.Generator) -> Sheet:
    """A new box."""
    x, y = grid_mm()
    sheet = Sheet(
        albedo=np.broadcast_to(np.asarray(KRAFT, np.float32), (*SHAPE, 3)).copy(),
        height_mm=np.zeros(SHAPE, np.float32),
        gloss=np.zeros(SHAPE, np.float32),
        damage=np.zeros(SHAPE, np.float32),
    )
    _flutes(sheet, rng, x, y)
    _paper(sheet, rng)
    _edges(sheet, rng, x, y)
    _flaps(sheet, rng)
    return sheet


def _flutes(sheet: Sheet, rng: np.random.Generator, x: Array, y: Array) -> None:
    """The wavy middle layer, which is visible through the liner, in some places more than in others."""
    across = np.where(x < LENGTH_MM, x, y)  # flutes are vertical on the walls and continue over the flaps
    wave = np.cos(across * (2 * np.pi / FLUTE_MM)).astype(np.float32)
    strength = np.clip(1 + 0.5 * fractal(rng, SHAPE, 60 * PX_PER_MM), 0.1, 2.2)
    sheet.height_mm += 0.055 * wave * strength
    sheet.albedo *= (1 + 0.024 * wave * strength)[..., None]


def _paper(sheet: Sheet, rng: np.random.Generator) -> None:
    """Uneven color, clouds, fibres and specks."""
    wander, cloud, grain = (fractal(rng, SHAPE, size * PX_PER_MM) for size in (120, 9, 1.2))
    sheet.albedo *= (1 + 0.030 * wander + 0.028 * cloud + 0.045 * grain)[..., None]
    sheet.albedo *= 1 + 0.012 * wander[..., None] * np.asarray((-0.5, 0.2, 1.0), np.float32)
    pale = fibres(rng, SHAPE, 9000, 4 * PX_PER_MM)
    dark = fibres(rng, SHAPE, 5000, 3 * PX_PER_MM)
    sheet.albedo *= (1 + 0.16 * pale - 0.20 * dark)[..., None]
    sheet.height_mm += 0.012 * grain + 0.02 * cloud
    scuffs = blurred(fibres(rng, SHAPE, 45, 28 * PX_PER_MM), 0.3)
    sheet.blend(PALE, 0.35 * scuffs)


def _edges(sheet: Sheet, rng: np.random.Generator, x: Array, y: Array) -> None:
    """Folded and worn edges: a pale, broken line along each, and a little relief beside it."""
    wear = np.clip(0.7 + 0.45 * fractal(rng, SHAPE, 14 * PX_PER_MM), 0, 1.4)
    nearest = np.full(SHAPE, 1e3, np.float32)
    for coordinate, places in ((x, (0, LENGTH_MM, LENGTH_MM + HEIGHT_MM)), (y, (0, WIDTH_MM, WIDTH_MM + HEIGHT_MM))):
        for place in places:
            nearest = np.minimum(nearest, np.abs(coordinate - place))
    sheet.blend(PALE, np.clip(0.55 * wear * smoothstep(1.8, 0.2, nearest), 0, 1))
    sheet.tint((0.9, 0.88, 0.86), 0.7 * smoothstep(6.5, 3.0, nearest) * smoothstep(1.5, 3.0, nearest))
    sheet.height_mm -= 0.35 * smoothstep(4.0, 0.0, nearest)


def _flaps(sheet: Sheet, rng: np.random.Generator) -> None:
    """The two outer flaps meet along the middle of the top; on the right their cut edges lie on the inner flap."""
    x_mm = np.linspace(0, LENGTH_MM, 60)
    seam = np.stack([x_mm, WIDTH_MM / 2 + 0.25 * rng.standard_normal(60).cumsum() * 0.3], axis=1)
    line = stroke(seam, 1.2, 0.2)
    sheet.tint((0.12, 0.10, 0.09), line)
    sheet.height_mm -= 0.8 * blurred(line, 0.6)
    sheet.blend(PALE, 0.4 * stroke(seam + np.array((0, 1.3)), 0.5, 0.2))
    end = np.array([[LENGTH_MM - 0.6, 0], [LENGTH_MM - 0.6, WIDTH_MM]])
    sheet.tint((0.35, 0.32, 0.3), 0.8 * stroke(end, 0.6, 0.25))
    score = np.array([[0, WIDTH_MM - 3.2], [LENGTH_MM, WIDTH_MM - 3.2]])
    sheet.height_mm -= 0.18 * stroke(score, 1.0, 0.5)
