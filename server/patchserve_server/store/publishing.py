"""Saves and deletes a revision. After a kill at any moment, the store has the old or the new state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from patchserve_server.domain.reference import ReferenceModel
from patchserve_server.store.damage import DamageError
from patchserve_server.store.files import sync, try_remove
from patchserve_server.store.generation import install_generation, try_remove_generation, write_generation
from patchserve_server.store.pointer import (
    read_pointer,
    remove_retired_pointer,
    retire_pointer,
    swap_pointer,
    write_pointer,
)
from patchserve_server.store.records import REVISION_PATTERN, Pointer

_STAGING_PREFIX = ".patchserve-save-"  # no reference_id starts with a dot


@contextmanager
def staged_files(root: Path, pointer: Pointer, model: ReferenceModel) -> Iterator[Path]:
    """Write a revision and its pointer to a staging folder. It is on the store's disk, so that moving them is one step.

    Raises:
        ValueError: the content could not be loaded again, or its digest is another.
    """
    staged = Path(mkdtemp(prefix=_STAGING_PREFIX, dir=root))
    try:
        write_generation(staged / pointer.revision, model, pointer.revision)
        write_pointer(staged, pointer)
        yield staged
    finally:
        try_remove(staged)


def remove_staging_folders(root: Path) -> None:
    """Remove the staging folders of killed saves."""
    for staged in root.glob(f"{_STAGING_PREFIX}*"):
        try_remove(staged)


def publish(staged: Path, folder: Path, revision: str) -> None:
    """Move a staged revision into the folder of its reference, make it current, and remove the older ones."""
    if folder.is_symlink():
        folder.unlink()
    if not folder.is_dir():
        folder.mkdir()
        sync(folder.parent)
    try:
        previous = read_pointer(folder)
    except DamageError:
        previous = None
    try:
        install_generation(staged / revision, folder / revision)
        sync(folder)
        swap_pointer(staged, folder, previous)
    except OSError:
        if previous is None or previous.revision != revision:
            with suppress(OSError):
                sync(folder)  # remove the new generation only when the previous pointer is on disk
                try_remove_generation(folder / revision)
        raise
    remove_generations(folder, keep=revision)


def unpublish(folder: Path) -> None:
    """Delete a reference: its pointer first, then its files. If the folder is a link, only the link is removed."""
    if folder.is_symlink():
        folder.unlink()
        sync(folder.parent)
    else:
        retire_pointer(folder)
        remove_generations(folder, keep=None)


def generations_in(folder: Path) -> list[Path]:
    """The generations of a reference, damaged ones too."""
    return [path for path in folder.iterdir() if re.fullmatch(REVISION_PATTERN, path.name)]


def remove_generations(folder: Path, *, keep: str | None) -> None:
    """Remove a retired pointer and all generations except `keep`. Other files stay. Failures are ignored."""
    remove_retired_pointer(folder)
    with suppress(OSError):
        for path in generations_in(folder):
            if path.name != keep:
                try_remove_generation(path)
        if keep is None:
            folder.rmdir()
