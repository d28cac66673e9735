"""One image: a parcel as it happened to lie, in the light of the moment, seen by the fixed camera."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from parcel_scene import cardboard, fittings, light, raster
from parcel_scene.conveyor import Plane, conveyor
from parcel_scene.geometry import Camera, Deformation, Mesh, box_mesh, handled
from parcel_scene.sheet import Sheet

WIDTH_PX, HEIGHT_PX = 640, 480
CAMERA = Camera((70, -690, 650), (8, 18, 40), focal_px=1960, width_px=2 * WIDTH_PX, height_px=2 * HEIGHT_PX)
CONVEYOR_SEED = 7


@dataclass(frozen=True)
class Damage:
    """Exactly one way to harm a parcel."""

    paint: Callable[[Sheet], None] | None = None
    bend: Deformation | None = None


@dataclass(frozen=True)
class Photograph:
    """A photograph and where it shows damage."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB
    mask: NDArray[np.uint8]  # (H, W) 0 or 255


def take(seed: int, damage: Damage | None) -> Photograph:
    """The image of this seed. With another damage, or none, everything else in it stays the same."""
    rng = np.random.default_rng(seed)
    yaw_deg, place_mm = -31 + rng.normal(0, 1.1), (rng.normal(0, 3.5), rng.normal(0, 3.0))
    lamp = light.Light(
        azimuth_deg=-140 + rng.normal(0, 5),
        elevation_deg=58 + rng.normal(0, 1.5),
        strength=1.05 * (1 + rng.normal(0, 0.045)),
        warmth=0.05 + rng.normal(0, 0.024),
    )
    sheet = cardboard.bare_box(rng)
    for fit in (fittings.handling_marks, fittings.tape, fittings.shipping_label, fittings.sticker):
        fit(sheet, rng)
    wear, film_rng = handled(rng), rng.spawn(1)[0]
    whole = box_mesh(yaw_deg, place_mm, wear, None)
    mesh = whole
    if damage and damage.paint:
        damage.paint(sheet)
    if damage and damage.bend:
        mesh = box_mesh(yaw_deg, place_mm, wear, damage.bend)
    seen = raster.look(CAMERA, mesh)
    linear = light.shade_conveyor(CAMERA, mesh, lamp, _conveyor())
    linear[seen.inside] = light.shade_box(CAMERA, mesh, seen, sheet, lamp)
    return Photograph(light.photograph(linear, film_rng), _mask(whole, mesh, seen, sheet))


@cache
def _conveyor() -> Plane:
    return conveyor(np.random.default_rng(CONVEYOR_SEED))


def _mask(whole: Mesh, mesh: Mesh, seen: raster.Seen, sheet: Sheet) -> NDArray[np.uint8]:
    """Painted damage, surface that moved by more than 2 mm, and conveyor that shows where the box should be."""
    harmed = np.zeros(seen.inside.shape, np.float32)
    painted = light.sample(sheet.damage, seen.take(mesh.sheet_mm)) > 0.5
    harmed[seen.inside] = painted | (seen.take(mesh.moved_mm) > 2)
    if mesh is not whole:
        harmed[raster.look(CAMERA, whole).inside & ~seen.inside] = 1
    share = cv2.resize(harmed, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)
    reach = (
        5 if mesh is whole else 25
    )  # between two folds the board may come back to its place: it is damaged there too
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    tidy = cv2.morphologyEx((share > 0.4).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return (tidy * 255).astype(np.uint8)
