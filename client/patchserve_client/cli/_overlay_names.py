"""The names of overlay files: no overlay may overwrite another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath


class OverlayNames:
    """Paths `<stem>_overlay<suffix>` below a folder; a stem that comes again gets a number."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder, self._suffix = folder, suffix
        self._numbers: dict[str, int] = {}  # the last number of each stem that is in use

    def path_of(self, name: PurePath) -> Path:
        """A new path for the image of this name. It keeps the name's folders."""
        # Some file systems ignore case: without casefold one overlay would overwrite another there.
        stem = name.with_suffix("").as_posix()
        number = self._numbers.get(stem.casefold(), 0) + 1
        while (free := stem if number == 1 else f"{stem}_{number}").casefold() in self._numbers:
            number += 1
        self._numbers[stem.casefold()] = number
        self._numbers.setdefault(free.casefold(), 1)
        return self._folder / f"{free}_overlay{self._suffix}"


def overlay_paths(images: Mapping[Path, PurePath], folder: Path, suffix: str) -> dict[Path, Path]:
    """The overlay file of each image."""
    names = OverlayNames(folder, suffix)
    return {image: names.path_of(name) for image, name in images.items()}
