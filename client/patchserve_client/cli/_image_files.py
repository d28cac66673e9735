"""The image files of a command line, and the overlay files that it writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import typer

from patchserve_client._image_files import SUFFIXES, image_files


def images_in(paths: Iterable[Path]) -> list[Path]:
    """The files, and the images directly in the folders, sorted by name. Each file once.

    Raises:
        typer.BadParameter: a folder has no images.
    """
    file_by_target: dict[Path, Path] = {}
    for path in paths:
        for file in _in_folder(path) if path.is_dir() else [path]:
            file_by_target.setdefault(file.resolve(), file)
    return list(file_by_target.values())


def _in_folder(folder: Path) -> list[Path]:
    files = image_files(folder)
    if not files:
        raise typer.BadParameter(f"There are no images in {folder} (looked for {' '.join(SUFFIXES)}).")
    return files


def overlay_paths(images: Iterable[Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """The overlay file of each image: `<stem>_overlay<suffix>`, with a number if two images have the same stem."""
    used: set[str] = set()
    paths = {}
    for image in images:
        numbered = (f"{image.stem}_{number}" for number in itertools.count(2))
        # Some file systems ignore case: without casefold one overlay would overwrite another there.
        stem = next(stem for stem in itertools.chain([image.stem], numbered) if stem.casefold() not in used)
        used.add(stem.casefold())
        paths[image] = folder / f"{stem}_overlay{suffix}"
    return paths
