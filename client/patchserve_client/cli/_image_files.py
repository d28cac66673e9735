"""Which files a command line means."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import typer

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images_in(paths: Iterable[Path]) -> list[Path]:
    """The files named, and the images lying directly in the folders named, by name. Each file once.

    Raises:
        typer.BadParameter: a folder without images.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for file in _in_folder(path) if path.is_dir() else [path]:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _in_folder(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise typer.BadParameter(f"There are no images in {folder} (looked for {' '.join(SUFFIXES)}).")
    return files


def overlay_paths(images: Iterable[Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """Where each image's overlay goes: `<stem>_overlay<suffix>`, with a number where stems are alike."""
    taken: set[str] = set()
    paths = {}
    for image in images:
        numbered = (f"{image.stem}_{number}" for number in itertools.count(2))
        # File systems that do not tell A from a must not lose one either.
        stem = next(stem for stem in itertools.chain([image.stem], numbered) if stem.casefold() not in taken)
        taken.add(stem.casefold())
        paths[image] = folder / f"{stem}_overlay{suffix}"
    return paths
