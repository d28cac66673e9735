"""The image files of a command line."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Final

import typer

from patchserve_client import _image_files
from patchserve_client._image_files import natural_order
from patchserve_client.cli._paths import path_from

STDIN: Final = Path("-")
_STDIN_NAME: Final = "stdin"

ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE|DIR",
        help='Image files, folders with all their sub-folders, patterns in quotes such as "new/*.jpg", or - for an '
        "image from standard input.",
    ),
]


def named_images(arguments: Iterable[str | Path], without: Collection[Path] = ()) -> dict[Path, PurePath]:
    """The images of the arguments, each once, with their names in an output folder.

    A name has the folders below the one that all arguments have in common, so tear/000.jpg and good/000.jpg stay apart.
    Sub-folders in `without` are skipped: those that the command writes to.

    Raises:
        OSError: a folder cannot be read.
        typer.BadParameter: an argument names no image, or is a folder in `without`.
    """
    files: dict[str, Path] = {}  # by absolute path, but links are not followed: a link is a file of its own
    folders: dict[str, str] = {}  # the argument's folder of each image
    for argument in map(str, arguments):
        for file, folder in _images_of(argument, without):
            absolute = _STDIN_NAME if file == STDIN else _absolute(file)
            files.setdefault(absolute, file)
            folders.setdefault(absolute, _absolute(folder))
    names = _names({file: folder for file, folder in folders.items() if file != _STDIN_NAME})
    return {file: names.get(absolute, PurePath(_STDIN_NAME)) for absolute, file in files.items()}


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links


def _names(folders: Mapping[str, str]) -> dict[str, PurePath]:
    try:
        common = os.path.commonpath(folders.values()) if folders else ""
    except ValueError:  # different drives of Windows
        return {file: PurePath(file).relative_to(folder) for file, folder in folders.items()}
    return {file: PurePath(file).relative_to(common) for file in folders}


def images_in(arguments: Iterable[str | Path]) -> list[Path]:
    """The images of the arguments, as in `named_images`."""
    return list(named_images(arguments))


def read_image(file: Path) -> bytes:
    """The bytes of a file, or of standard input.

    Raises:
        OSError: it cannot be read. `filename` is the file.
    """
    try:
        return sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    except OSError as error:
        error.filename = str(file)  # missing if the file was opened but cannot be read
        raise


def refuse_written(folder: Path, without: Iterable[Path]) -> None:
    """Refuse to inspect a folder that overlays are written to.

    Raises:
        typer.BadParameter: it is one of `without`.
    """
    if folder.resolve() in [one.resolve() for one in without]:
        raise typer.BadParameter(
            "--out and --save-anomalies must not be the inspected folder: overlays are images, too."
        )


def _images_of(argument: str, without: Collection[Path]) -> Iterator[tuple[Path, Path]]:
    """The images of an argument, each with the folder that the argument names or is in."""
    if argument == str(STDIN):
        yield STDIN, Path()
        return
    for path in _existing(argument):
        if path.is_dir():
            refuse_written(path, without)
            try:
                files = _image_files.images_in(path, without)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            yield from ((file, path) for file in files)
        else:
            yield (path.absolute() if path == STDIN else path), path.parent  # ./- is a file, - is not


def _existing(argument: str) -> list[Path]:
    """The path, or what matches the pattern. A shell on Windows leaves patterns to the program."""
    path = path_from(argument)
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(argument):
        raise typer.BadParameter(f"There is no file or folder {path}.")
    matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - also for patterns that begin at the root
    if not matches:
        raise typer.BadParameter(f"No file matches {path}.")
    return sorted(map(Path, matches), key=natural_order)
