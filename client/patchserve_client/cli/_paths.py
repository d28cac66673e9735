"""Paths on a command line. A shell does not expand `~` after `=` or in quotes, so this does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer


def path_from(text: str | Path) -> Path:
    """The path, with `~` expanded.

    Raises:
        typer.BadParameter: the text is empty, as that of a variable that is not set. It would be the current folder.
    """
    if text == "":
        raise typer.BadParameter("A path is empty.")
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib raises if there is no such user


def _existing_file(text: str | Path) -> Path:
    path = path_from(text)
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder, not a file.")
    if not path.exists():
        raise typer.BadParameter(f"There is no file {path}.")
    return path


def _existing_folder(text: str | Path) -> Path:
    path = path_from(text)
    if not path.is_dir():
        raise typer.BadParameter(f"{path} is not a folder." if path.exists() else f"There is no folder {path}.")
    return path


def _new_file(text: str | Path) -> Path:
    path = path_from(text)
    if str(text) == "-":  # for other commands the standard output: a file of this name would surprise
        raise typer.BadParameter("It cannot be written to the standard output: name a file.")
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder, not a file.")
    return path


def _new_folder(text: str | Path) -> Path:
    path = path_from(text)
    if path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file, not a folder.")
    return path


# Keyword arguments of typer.Option and typer.Argument.
EXISTING_FILE: dict[str, Any] = {"parser": _existing_file}
EXISTING_FOLDER: dict[str, Any] = {"parser": _existing_folder}
NEW_FILE: dict[str, Any] = {"parser": _new_file}
NEW_FOLDER: dict[str, Any] = {"parser": _new_folder}
