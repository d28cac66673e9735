"""One image: a parcel in a random position and light, seen by the fixed camera."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from parcel_scene import cardboard, fittings, light, raster
from parcel_scene.conveyor import Plane, conveyor
from parcel_scene.geometry import Camera, Deformation, Mesh, box_mesh, handling_wear
from parcel_scene.noise import Array
from parcel_scene.sheet import Sheet

CONVEYOR_SEED = 7
YAW_DEG = -31.0
MAX_CONVEYOR_PX = 1280  # the width in which the conveyor is shaded: its texture is not finer


@dataclass(frozen=True)
class View:
    """The size of photographs, how many points are rendered along the side of each pixel, and how parcels are taped."""

    width_px: int
    height_px: int
    points: int
    tape_folds: int  # of a tape that was applied by hand; 0: by a machine

    def camera(self) -> Camera:
        """The camera with one pixel for each rendered point."""
        return _camera(self.points * self.width_px, self.points * self.height_px)

    def conveyor_camera(self) -> Camera:
        """The same camera with fewer pixels."""
        shrink = min(1.0, MAX_CONVEYOR_PX / (self.points * self.width_px))
        return _camera(round(shrink * self.points * self.width_px), round(shrink * self.points * self.height_px))


SMALL_VIEW = View(640, 480, points=2, tape_folds=7)
LARGE_VIEW = View(2048, 1536, points=1, tape_folds=0)


def _camera(width_px: int, height_px: int) -> Camera:
    focal_px = 1960 / 1280 * width_px
    return Camera((70, -690, 650), (8, 18, 40), focal_px=focal_px, width_px=width_px, height_px=height_px)


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


def take_photograph(seed: int, damage: Damage | None, view: View = SMALL_VIEW) -> Photograph:
    """The image of this seed. The damage changes nothing else in it."""
    return take_photographs(seed, [damage], view)[0]


def take_photographs(seed: int, damages: Sequence[Damage | None], view: View) -> list[Photograph]:
    """The parcel of this seed, photographed with each damage. Apart from the sensor's noise, nothing else changes."""
    rng = np.random.default_rng(seed)
    yaw_deg, place_mm = YAW_DEG + rng.normal(0, 1.1), (rng.normal(0, 3.5), rng.normal(0, 3.0))
    lamp = light.Light(
        azimuth_deg=-140 + rng.normal(0, 5),
        elevation_deg=58 + rng.normal(0, 1.5),
        strength=1.05 * (1 + rng.normal(0, 0.045)),
        warmth=0.05 + rng.normal(0, 0.024),
    )
    sheet = cardboard.bare_box(rng)
    fittings.handling_marks(sheet, rng)
    fittings.tape(sheet, rng, view.tape_folds)
    fittings.shipping_label(sheet, rng)
    fittings.sticker(sheet, rng)
    wear, film_rngs = handling_wear(rng), rng.spawn(len(damages))
    intact = _look(view, box_mesh(yaw_deg, place_mm, wear, None), lamp)
    photographs = []
    for damage, film_rng in zip(damages, film_rngs, strict=True):
        painted, seen = deepcopy(sheet), intact
        if damage and damage.paint:
            damage.paint(painted)
        if damage and damage.bend:
            seen = _look(view, box_mesh(yaw_deg, place_mm, wear, damage.bend), lamp)
        linear = seen.surroundings.copy()
        linear[seen.visible.inside] = light.shade_box(view.camera(), seen.mesh, seen.visible, painted, lamp)
        pixels = light.photograph(linear, film_rng, view.points)
        photographs.append(Photograph(pixels, _mask(view, intact, seen, painted)))
    return photographs


@dataclass(frozen=True)
class _Seen:
    """A box of this form in its place and light, without its surface."""

    mesh: Mesh
    visible: raster.VisiblePoints
    surroundings: Array  # (H, W, 3) linear, of the rendered points


def _look(view: View, mesh: Mesh, lamp: light.Light) -> _Seen:
    camera, conveyor_camera = view.camera(), view.conveyor_camera()
    surroundings = light.shade_conveyor(conveyor_camera, mesh, lamp, _conveyor())
    if conveyor_camera != camera:
        size_px = (camera.width_px, camera.height_px)
        surroundings = cv2.resize(surroundings.astype(np.float32), size_px, interpolation=cv2.INTER_CUBIC)
    return _Seen(mesh, raster.rasterize(camera, mesh), surroundings)


@cache
def _conveyor() -> Plane:
    return conveyor(np.random.default_rng(CONVEYOR_SEED))


def _mask(view: View, intact: _Seen, seen: _Seen, sheet: Sheet) -> NDArray[np.uint8]:
    """Painted damage, surface that moved by more than 2 mm, and conveyor that is visible in the place of the box."""
    mesh, visible = seen.mesh, seen.visible
    damaged = np.zeros(visible.inside.shape, np.float32)
    painted = light.sample(sheet.damage, visible.interpolate(mesh.sheet_mm)) > 0.5
    damaged[visible.inside] = painted | (visible.interpolate(mesh.moved_mm) > 2)
    if seen is not intact:
        damaged[intact.visible.inside & ~visible.inside] = 1
    share = cv2.resize(damaged, (view.width_px, view.height_px), interpolation=cv2.INTER_AREA)
    # Between two folds the board may be back in its place; it counts as damaged there too.
    size_px = 5 if seen is intact else 25
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size_px, size_px))
    closed = cv2.morphologyEx((share > 0.4).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return (closed * 255).astype(np.uint8)
