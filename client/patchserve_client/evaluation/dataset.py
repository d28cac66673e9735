"""Labeled images in the layout of MVTec AD."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from patchserve_client._counted import counted
from patchserve_client._image_files import SUFFIXES, image_files, natural_order

LAYOUT = "train/good, test/good, test/<defect>, ground_truth/<defect>/<stem>_mask.png"
GOOD = "good"
_ROTATED = (5, 6, 7, 8)  # the EXIF orientations that swap width and height
_MASK_THRESHOLD = 127  # masks are black and white; compression may leave values in between


class DatasetError(ValueError):
    """The folder is not a dataset in the layout of MVTec AD, or a file in it cannot be used."""


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """A test image and its labels."""

    path: Path
    name: str  # the path inside the dataset
    defect: str | None  # None: intact
    mask_path: Path | None  # None: intact, or the damaged pixels are not known
    size_px: tuple[int, int]  # (width, height), upright


@dataclass(frozen=True, slots=True)
class Dataset:
    """Reference images and test images, in natural order."""

    root: Path
    references: tuple[Path, ...]  # intact images for the reference, at least one
    images: tuple[LabeledImage, ...]  # test images, at least one
    notes: tuple[str, ...]  # warnings for the user, as sentences


def read_dataset(root: Path) -> Dataset:
    """Find the images and masks of a dataset. Reads the masks and the headers of the images.

    Raises:
        DatasetError: folders are missing or empty, a test image or a mask is damaged, or a mask and its
            image differ in size.
    """
    for required in (root / "train" / GOOD, root / "test"):
        if not required.is_dir():
            raise DatasetError(f"{root} has no folder {required.relative_to(root)}. The layout is {LAYOUT}.")
    references = tuple(image_files(root / "train" / GOOD))
    if not references:
        raise DatasetError(f"{root / 'train' / GOOD} has no images (looked for {' '.join(SUFFIXES)}).")
    folders = (folder for folder in (root / "test").iterdir() if folder.is_dir() and not folder.name.startswith("."))
    kinds = sorted(folders, key=natural_order)
    images = {kind.name: tuple(_labeled(root, kind)) for kind in kinds}
    if not any(images.values()):
        raise DatasetError(f"{root / 'test'} has no folders with images. The layout is {LAYOUT}.")
    notes = tuple(note for kind, files in images.items() for note in _notes(root, kind, files))
    return Dataset(root, references, tuple(image for files in images.values() for image in files), notes)


def chosen_references(dataset: Dataset, count: int | None, seed: int | None) -> tuple[Path, ...]:
    """The reference images to use: all, or the first `count` by name, or with a seed `count` drawn at random.

    Raises:
        DatasetError: there are fewer than `count`.
    """
    available = dataset.references
    if count is None:
        return available
    if count > len(available):
        raise DatasetError(f"{available[0].parent} has {counted(len(available), 'image')}, not {count}.")
    if seed is None:
        return available[:count]
    drawn = random.Random(seed).sample(available, count)  # noqa: S311 - not for secrets
    return tuple(sorted(drawn, key=natural_order))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """The mask of damaged pixels: (H, W).

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) > _MASK_THRESHOLD
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's PNG reader raises SyntaxError
        raise DatasetError(f"{path} cannot be read as a mask: {error}") from error


def _labeled(root: Path, folder: Path) -> Iterator[LabeledImage]:
    for path in image_files(folder):
        size_px = _upright_size_px(path)
        defect = None if folder.name == GOOD else folder.name
        mask_path = root / "ground_truth" / folder.name / f"{path.stem}_mask.png"
        has_mask = defect is not None and mask_path.is_file() and _marks_damage(mask_path, size_px)
        name = path.relative_to(root).as_posix()
        yield LabeledImage(path, name, defect, mask_path if has_mask else None, size_px)


def _marks_damage(mask_path: Path, size_px: tuple[int, int]) -> bool:
    mask = read_mask(mask_path)
    if mask.shape[::-1] != size_px:
        sizes = "{1} x {0} pixels, its image {2} x {3}".format(*mask.shape, *size_px)
        raise DatasetError(f"{mask_path} has {sizes}. The sizes must be equal.")
    return bool(mask.any())


def _upright_size_px(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            is_rotated = image.getexif().get(ExifTags.Base.Orientation) in _ROTATED
            return (image.height, image.width) if is_rotated else (image.width, image.height)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} is not an image: {error}") from error


def _notes(root: Path, kind: str, images: tuple[LabeledImage, ...]) -> Iterator[str]:
    if not images:
        yield f"test/{kind} has no images."
    if kind == GOOD:
        return
    without_mask = [image for image in images if image.mask_path is None]
    if without_mask:
        yield (
            f"{len(without_mask)} of {counted(len(images), 'image')} in test/{kind} without a mask of the damage: "
            "for the image metrics only."
        )
    image_masks = {f"{image.path.stem}_mask.png" for image in images}
    unmatched = [
        mask.name for mask in (root / "ground_truth" / kind).glob("*_mask.png") if mask.name not in image_masks
    ]
    if unmatched:
        masks = counted(len(unmatched), "mask")
        yield f"{masks} without an image in ground_truth/{kind}, for example {min(unmatched)}."
