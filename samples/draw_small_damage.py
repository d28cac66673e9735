"""Draws large photographs of parcels with small damage: python samples/draw_small_damage.py FOLDER.

A machine has taped these parcels: a fold in a film that was applied by hand is as large as the damage, and as rare.
30 parcels for the reference, and 40 test parcels, each photographed intact and again with one small damage. Each parcel
has its own fixed seed, so the same code draws the same images. They take 35 MB and some minutes.
"""

import argparse
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from draw_parcels import save
from parcel_scene.damage import Point
from parcel_scene.geometry import Mesh, box_mesh
from parcel_scene.noise import Array
from parcel_scene.scene import LARGE_VIEW, YAW_DEG, Damage, take_photographs
from parcel_scene.sheet import HEIGHT_MM, LENGTH_MM, WIDTH_MM
from parcel_scene.small_damage import KINDS, LONG_KINDS, spot

REFERENCES = range(5000, 5030)
TESTS = range(6000, 6040)
"""Seeds of the parcels."""
SIZES_PX = (10.0, 38.0)
MIN_LONG_PX = 13.0
"""A scratch or a tear at an angle of 45 degrees fits into 0.7 of its length."""
MARGIN_MM = 12.0
SIDES = (
    (0.0, 0.0, LENGTH_MM, WIDTH_MM),  # top
    (0.0, WIDTH_MM, LENGTH_MM, HEIGHT_MM),  # front
)
"""x, y, width and height on the sheet in mm. The camera sees the right side so obliquely that it has no damage."""
PRINTED = ((156.0, 148.0, 124.0, 88.0), (202.0, 284.0, 88.0, 60.0), (22.0, 318.0, 128.0, 56.0))
"""The label, the sticker and the symbols, where nobody would see damage of this size between the letters."""


def small_damage(seed: int) -> tuple[str, Damage]:
    """One small damage in a random place of the parcel, by its kind."""
    rng = np.random.default_rng(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    center_mm, px_per_mm = _place(rng)
    heading = rng.uniform(0, math.pi)
    size_px = math.exp(rng.uniform(*np.log(SIZES_PX)))
    if kind in LONG_KINDS:
        direction = np.array((math.cos(heading), math.sin(heading)))
        size_mm = max(size_px, MIN_LONG_PX) / float(np.linalg.norm(px_per_mm @ direction))
    else:
        size_mm = size_px / float(np.linalg.norm(px_per_mm, 2))
    return kind, Damage(paint=lambda sheet: KINDS[kind](spot(sheet, rng, center_mm, heading, size_mm), size_mm))


def _place(rng: np.random.Generator) -> tuple[Point, Array]:
    """A point of the sheet, and the pixels (2, 2) that a mm along its x and along its y is in the photograph."""
    areas = np.array([width * height for _, _, width, height in SIDES])
    while True:
        x, y, width, height = SIDES[rng.choice(len(SIDES), p=areas / areas.sum())]
        center = x + rng.uniform(MARGIN_MM, width - MARGIN_MM), y + rng.uniform(MARGIN_MM, height - MARGIN_MM)
        is_printed = any(0 <= center[0] - x < width and 0 <= center[1] - y < height for x, y, width, height in PRINTED)
        if not is_printed:
            return center, _px_per_mm(center)


def _px_per_mm(center_mm: Point) -> Array:
    mesh = _plain_mesh()
    nearest = np.linalg.norm(mesh.sheet_mm - center_mm, axis=1).argmin()
    steps = np.stack([np.zeros(3), mesh.along_x[nearest], mesh.along_y[nearest]])
    origin, right, down = LARGE_VIEW.camera().project(mesh.position[nearest] + steps)[:, :2]
    return np.stack([right - origin, down - origin], axis=1)


@cache
def _plain_mesh() -> Mesh:
    return box_mesh(YAW_DEG, (0, 0), np.zeros_like, None)


def draw_reference(folder: Path, seed: int) -> str:
    name = f"train/good/{seed}"
    save(folder, name, take_photographs(seed, [None], LARGE_VIEW)[0])
    return name


def draw_test(folder: Path, seed: int) -> str:
    kind, damage = small_damage(seed)
    intact, damaged = take_photographs(seed, [None, damage], LARGE_VIEW)
    save(folder, f"test/good/{seed}", intact)
    save(folder, f"test/{kind}/{seed}", damaged)
    return f"test/{kind}/{seed}"


def draw_all(folder: Path, processes: int | None = None) -> Iterator[str]:
    """Draws all images; yields the name of each parcel when it is drawn."""
    with ProcessPoolExecutor(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        drawn = [pool.submit(draw_reference, folder, seed) for seed in REFERENCES]
        drawn += [pool.submit(draw_test, folder, seed) for seed in TESTS]
        for parcel in drawn:
            yield parcel.result()


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws large photographs of parcels with small damage.")
    parser.add_argument("folder", type=Path, help="output folder, in the layout of MVTec AD")
    parser.add_argument("--processes", type=int, help="how many draw at once (default: one per core)")
    options = parser.parse_args()
    for name in draw_all(options.folder, options.processes):
        print(name)


if __name__ == "__main__":
    main()
