"""Labeled images in the layout of MVTec AD."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

LAYOUT = "train/good, test/good, test/<defect>, ground_truth/<defect>/<stem>_mask.png"
GOOD = "good"
_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_TURNED = (5, 6, 7, 8)  # the EXIF orientations that swap width and height
_MARKED = 127  # masks are black and white; what compression left in between is rounded


class DatasetError(ValueError):
    """The folder is no data set in the layout of MVTec AD, or a file in it cannot be used."""


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """A test image and what is true of it."""

    path: Path
    name: str  # the path inside the data set
    defect: str | None  # None: intact
    mask_path: Path | None  # None: intact, or where the damage is is not known
    size_px: tuple[int, int]  # (width, height), upright


@dataclass(frozen=True, slots=True)
class Dataset:
    """What there is to learn from and to test with, by name."""

    root: Path
    references: tuple[Path, ...]  # intact images to build a reference from, at least one
    images: tuple[LabeledImage, ...]  # at least one
    notes: tuple[str, ...]  # what a user should know of the data set, in sentences


def read_dataset(root: Path) -> Dataset:
    """Finds the images and masks of a data set, and reads the masks and the images' headers.

    Raises:
        DatasetError: folders are missing or empty, a test image or a mask is damaged, or a mask is not of its
            image's size.
    """
    for needed in (root / "train" / GOOD, root / "test"):
        if not needed.is_dir():
            raise DatasetError(f"{root} has no folder {needed.relative_to(root)}. The layout is {LAYOUT}.")
    references = tuple(_files_in(root / "train" / GOOD))
    if not references:
        raise DatasetError(f"{root / 'train' / GOOD} has no images (looked for {' '.join(_SUFFIXES)}).")
    kinds = sorted(
        folder for folder in (root / "test").iterdir() if folder.is_dir() and not folder.name.startswith(".")
    )
    images = {kind.name: tuple(_labeled(root, kind)) for kind in kinds}
    if not any(images.values()):
        raise DatasetError(f"{root / 'test'} has no folders with images. The layout is {LAYOUT}.")
    notes = tuple(note for kind, found in images.items() for note in _notes(root, kind, found))
    return Dataset(root, references, tuple(image for found in images.values() for image in found), notes)


def chosen_references(dataset: Dataset, count: int | None, seed: int | None) -> tuple[Path, ...]:
    """Some of the reference images: all without a count, the first ones by name without a seed, else drawn by it.

    Raises:
        DatasetError: there are not so many.
    """
    available = dataset.references
    if count is None:
        return available
    if count > len(available):
        raise DatasetError(f"There are {len(available)} images in {available[0].parent}, not {count}.")
    return available[:count] if seed is None else tuple(sorted(random.Random(seed).sample(available, count)))  # noqa: S311 - not for secrets


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Which pixels are damaged: (H, W).

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) > _MARKED
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's PNG reader says SyntaxError
        raise DatasetError(f"{path} cannot be read as a mask: {error}") from error


def _files_in(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _labeled(root: Path, folder: Path) -> Iterator[LabeledImage]:
    for path in _files_in(folder):
        size_px = _upright_size_px(path)
        defect = None if folder.name == GOOD else folder.name
        mask_path = root / "ground_truth" / folder.name / f"{path.stem}_mask.png"
        usable = defect is not None and mask_path.is_file() and _marks_damage(mask_path, size_px)
        name = path.relative_to(root).as_posix()
        yield LabeledImage(path, name, defect, mask_path if usable else None, size_px)


def _marks_damage(mask_path: Path, size_px: tuple[int, int]) -> bool:
    mask = read_mask(mask_path)
    if mask.shape[::-1] != size_px:
        sizes = "{1} x {0} pixels, its image {2} x {3}".format(*mask.shape, *size_px)
        raise DatasetError(f"{mask_path} has {sizes}: they must be alike.")
    return bool(mask.any())


def _upright_size_px(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} is no image: {error}") from error


def _notes(root: Path, kind: str, images: tuple[LabeledImage, ...]) -> Iterator[str]:
    if not images:
        yield f"test/{kind} has no images."
    if kind == GOOD:
        return
    unmarked = [image for image in images if image.mask_path is None]
    if unmarked:
        yield (
            f"{len(unmarked)} of {len(images)} images in test/{kind} have no mask that marks damage: "
            "they count for the image metrics only."
        )
    known = {f"{image.path.stem}_mask.png" for image in images}
    strays = [mask.name for mask in (root / "ground_truth" / kind).glob("*_mask.png") if mask.name not in known]
    if strays:
        yield f"{len(strays)} of the masks in ground_truth/{kind} fit no image, such as {min(strays)}."
