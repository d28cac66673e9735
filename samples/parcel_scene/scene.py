"""One image: a parcel in a random position and light, seen by the fixed camera."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from parcel_scene import cardboard, fittings, light, raster
from parcel_scene.conveyor import Plane, conveyor
from parcel_scene.geometry import Camera, Deformation, Mesh, box_mesh, handling_wear
from parcel_scene.sheet import Sheet

WIDTH_PX, HEIGHT_PX = 640, 480
CAMERA = Camera((70, -690, 650), (8, 18, 40), focal_px=1960, width_px=2 * WIDTH_PX, height_px=2 * HEIGHT_PX)
CONVEYOR_SEED = 7


@dataclass(frozen=True)
class Damage:
    """One kind of damage: either `paint` or `bend` is set."""

    paint: Callable[[Sheet], None] | None = None
    bend: Deformation | None = None


@dataclass(frozen=True)
class Photograph:
    """A photograph and its damage mask."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB
    mask: NDArray[np.uint8]  # (H, W) 0 or 255


def take_photograph(seed: int, damage: Damage | None) -> Photograph:
    """The image of this seed. The damage changes nothing else in it."""
    rng = np.random.default_rng(seed)
    yaw_deg, place_mm = -31 + rng.normal(0, 1.1), (rng.normal(0, 3.5), rng.normal(0, 3.0))
    lamp = light.Light(
        azimuth_deg=-140 + rng.normal(0, 5),
        elevation_deg=58 + rng.normal(0, 1.5),
        strength=1.05 * (1 + rng.normal(0, 0.045)),
        warmth=0.05 + rng.normal(0, 0.024),
    )
    sheet = cardboard.bare_box(rng)
    for add in (fittings.handling_marks, fittings.tape, fittings.shipping_label, fittings.sticker):
        add(sheet, rng)
    wear, film_rng = handling_wear(rng), rng.spawn(1)[0]
    intact = box_mesh(yaw_deg, place_mm, wear, None)
    mesh = intact
    if damage and damage.paint:
        damage.paint(sheet)
    if damage and damage.bend:
        mesh = box_mesh(yaw_deg, place_mm, wear, damage.bend)
    visible = raster.rasterize(CAMERA, mesh)
    linear = light.shade_conveyor(CAMERA, mesh, lamp, _conveyor())
    linear[visible.inside] = light.shade_box(CAMERA, mesh, visible, sheet, lamp)
    return Photograph(light.photograph(linear, film_rng), _mask(intact, mesh, visible, sheet))


@cache
def _conveyor() -> Plane:
    return conveyor(np.random.default_rng(CONVEYOR_SEED))


def _mask(intact: Mesh, mesh: Mesh, visible: raster.VisiblePoints, sheet: Sheet) -> NDArray[np.uint8]:
    """Painted damage, surface that moved by more than 2 mm, and conveyor that is visible in the place of the box."""
    damaged = np.zeros(visible.inside.shape, np.float32)
    painted = light.sample(sheet.damage, visible.interpolate(mesh.sheet_mm)) > 0.5
    damaged[visible.inside] = painted | (visible.interpolate(mesh.moved_mm) > 2)
    if mesh is not intact:
        damaged[raster.rasterize(CAMERA, intact).inside & ~visible.inside] = 1
    share = cv2.resize(damaged, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)
    # Between two folds the board may be back in its place; it counts as damaged there too.
    size_px = 5 if mesh is intact else 25
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size_px, size_px))
    closed = cv2.morphologyEx((share > 0.4).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return (closed * 255).astype(np.uint8)
