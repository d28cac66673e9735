"""Draws the sample parcels: python samples/draw_parcels.py [--out FOLDER] [--only NAME ...].

Each image has its own fixed seed, so the same code draws the same images.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from parcel_scene import damage
from parcel_scene.scene import Damage, Photograph, take_photograph
from PIL import Image

HERE = Path(__file__).resolve().parent


def crushed(seed: int, corner: tuple[int, int], depth_mm: float) -> Damage:
    return Damage(bend=damage.crushed_corner(np.random.default_rng(seed), corner, depth_mm))


def painted(seed: int, paint: Callable[..., None], *place: object) -> Damage:
    return Damage(paint=lambda sheet: paint(sheet, np.random.default_rng(seed), *place))


SCENES: dict[str, tuple[int, Damage | None]] = {
    **{f"train/good/{n:03d}": (1000 + n, None) for n in range(8)},
    **{f"test/good/{n:03d}": (2000 + n, None) for n in range(4)},
    "test/crushed_corner/000": (3000, crushed(25, (1, -1), 58)),
    "test/crushed_corner/001": (3001, crushed(20, (1, 1), 50)),
    "test/tear/000": (3100, painted(104, damage.tear, (28, 292), (160, 322), 11)),
    "test/tear/001": (3101, painted(105, damage.tear, (195, 78), (290, 38), 9)),
    "test/puncture/000": (3200, painted(115, damage.puncture, (150, 290), 22)),
    "test/puncture/001": (3201, painted(107, damage.puncture, (92, 186), 19)),
    "test/stain/000": (
        3300,
        painted(108, damage.stain, [(70, 215, 90, 70), (84, 262, 34, 80), (118, 190, 30, 26)], 0.85),
    ),
    "test/stain/001": (3301, painted(109, damage.stain, [(215, 42, 130, 80), (280, 66, 70, 56)], 0.85)),
}
"""Name -> seed of the scene, and the damage to the parcel. Sheet coordinates in mm."""


def draw(name: str) -> Photograph:
    seed, damage_kind = SCENES[name]
    return take_photograph(seed, damage_kind)


def save(folder: Path, name: str, image: Photograph) -> None:
    """Write the JPEG and, for a damaged parcel, its mask, in the layout of MVTec AD."""
    path = folder / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.pixels).save(path, quality=88, subsampling="4:2:0", optimize=True)
    if image.mask.any():
        kind, number = name.split("/")[1:]
        mask_path = folder / "ground_truth" / kind / f"{number}_mask.png"
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.mask).save(mask_path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the sample parcels.")
    parser.add_argument("--out", type=Path, default=HERE / "parcels", help="output folder (default: samples/parcels)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SCENES,
        default=list(SCENES),
        metavar="NAME",
        help="names of the images to draw, such as test/tear/000 (default: all)",
    )
    options = parser.parse_args()
    for name in options.only:
        save(options.out, name, draw(name))
        print(name)


if __name__ == "__main__":
    main()
