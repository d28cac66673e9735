"""Image files: those in a folder, their order, their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Final

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_FRAME_ID_BYTES: Final = 128


def natural_order(path: PurePath) -> tuple[object, ...]:
    """The key that sorts paths as people count: frame 2 before frame 10."""
    return tuple(tuple(_words_and_numbers(part)) for part in path.parts), str(path)  # the text decides 01 and 1


def _words_and_numbers(text: str) -> Iterator[tuple[str, int]]:
    for word, number in re.findall(r"([^0-9]*)([0-9]*)", text):
        yield word.casefold(), int(number or -1)


def image_files(folder: Path) -> list[Path]:
    """The images directly in a folder, in natural order. Hidden files are skipped."""
    return sorted(filter(_is_image, folder.iterdir()), key=natural_order)


def images_in(folder: Path, without: Iterable[Path] = ()) -> list[Path]:
    """The images in a folder and its sub-folders, in natural order. Hidden files and folders are skipped.

    So are the sub-folders `without`, for example those that the caller writes to.

    Links count as what they point to; a link to a folder above itself is not followed.

    Raises:
        OSError: a folder cannot be read.
        ValueError: there are none.
    """
    files = sorted(_walk(folder, frozenset(map(os.path.realpath, without))), key=natural_order)
    if not files:
        raise ValueError(f"There are no images in {folder} (looked for {' '.join(SUFFIXES)}).")
    return files


def _walk(folder: Path, closed: frozenset[str]) -> Iterator[Path]:
    closed |= {os.path.realpath(folder)}  # a link in it may point up
    for entry in folder.iterdir():
        if _is_image(entry):
            yield entry
        elif entry.is_dir() and not entry.name.startswith(".") and os.path.realpath(entry) not in closed:
            yield from _walk(entry, closed)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def frame_id_of(name: str) -> str:
    """A file name as a frame id: valid UTF-8, and of a long name the end, because long names often start alike."""
    return name.encode(errors="backslashreplace")[-MAX_FRAME_ID_BYTES:].decode(errors="ignore")


def image_name_of(name: str) -> str:
    """A file name as the name of a reference's image: like a frame id, and with ? in place of what is not printable."""
    return frame_id_of("".join(character if character.isprintable() else "?" for character in name))
