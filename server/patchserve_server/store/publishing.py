"""Saves and deletes a revision. After a kill at any moment, the store has the old or the new state."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from patchserve_server.domain.reference import Reference
from patchserve_server.store.files import exists, is_plain_folder, try_remove
from patchserve_server.store.generation import (
    install_generation,
    is_generation,
    try_remove_generation,
    write_generation,
)
from patchserve_server.store.pointer import (
    find_pointer,
    has_pointer,
    is_deleted,
    remove_retired_pointer,
    retire_pointer,
    swap_pointer,
    write_pointer,
)
from patchserve_server.store.records import REVISION_PATTERN, Pointer, PreviousRevision
from patchserve_server.system.disk import sync_folder

_STAGING_PREFIX = ".patchserve-save-"  # no reference_id starts with a dot


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """A new folder on the store's disk, so that moving files into the store is one step. Removed at the end."""
    staged = Path(mkdtemp(prefix=_STAGING_PREFIX, dir=root))
    try:
        yield staged
    finally:
        try_remove(staged)


@contextmanager
def staged_reference(root: Path, reference: Reference) -> Iterator[Path]:
    """Write a revision to a folder that has the name of the reference.

    Raises:
        ValueError: the content could not be loaded again, or its digest is another.
    """
    with staging_folder(root) as staging:
        staged = staging / reference.reference_id
        staged.mkdir()
        write_generation(staged / reference.revision, reference)
        yield staged


def remove_staging_folders(root: Path) -> None:
    """Remove the staging folders of killed saves."""
    for staged in root.glob(f"{_STAGING_PREFIX}*"):
        try_remove(staged)


def publish(staged: Path, folder: Path, pointer: Pointer) -> None:
    """Make a staged revision the current one of the reference in `folder`, and remove those that are not kept."""
    write_pointer(staged, pointer)
    sync_folder(staged)
    if folder.is_symlink():
        folder.unlink()
    if exists(folder) and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    if exists(folder):
        _publish_in(folder, staged, pointer.revision)
        remove_generations(folder, keep=pointer.revisions)
    else:
        _publish_first(folder, staged)


def _publish_first(folder: Path, staged: Path) -> None:
    """Move everything in one step, so that no kill can leave a generation without a pointer."""
    staged.rename(folder)
    try:
        sync_folder(folder.parent)
    except OSError:
        folder.rename(staged)
        raise


def _publish_in(folder: Path, staged: Path, revision: str) -> None:
    old = find_pointer(folder)
    is_new = not exists(folder / revision)
    try:
        install_generation(staged / revision, folder / revision)
        sync_folder(folder)
        swap_pointer(staged, folder, old)
    except OSError:
        if is_new:
            with suppress(OSError):
                sync_folder(folder)  # remove the new generation only when the old pointer is on disk
                try_remove_generation(folder / revision)
        raise


def exchange(root: Path, folder: Path, old: Pointer, previous: PreviousRevision) -> Pointer:
    """Replace only the pointer, by one with current and previous exchanged. Nothing is removed, damaged or not."""
    new = Pointer(
        **{
            **dict(old),
            "revision": previous.revision,
            "update_time": previous.update_time,
            "operation": previous.operation,
            "previous": PreviousRevision(revision=old.revision, update_time=old.update_time, operation=old.operation),
        }
    )
    with staging_folder(root) as staged:
        write_pointer(staged, new)
        swap_pointer(staged, folder, old)
    return new


def unpublish(folder: Path) -> None:
    """Delete a reference: its pointer first, then its files. If the folder is a link, only the link is removed.

    Raises:
        OSError: its pointer, or all files of a reference without a pointer, cannot be removed.
    """
    if folder.is_symlink():
        folder.unlink()
        sync_folder(folder.parent)
        return
    if has_pointer(folder):
        retire_pointer(folder)
    remove_generations(folder, keep=())
    if has_reference(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def has_reference(folder: Path) -> bool:
    """Whether a reference is in this folder. It is damaged if it has generations, but no pointer that was deleted."""
    if has_pointer(folder):
        return True
    return is_plain_folder(folder) and bool(generations_in(folder)) and not is_deleted(folder)


def generations_in(folder: Path) -> list[Path]:
    """The generations of a reference, damaged ones too."""
    return sorted(
        path for path in folder.iterdir() if re.fullmatch(REVISION_PATTERN, path.name) and is_generation(path)
    )


def remove_generations(folder: Path, *, keep: Collection[str]) -> None:
    """Remove all generations except these revisions, then a retired pointer. Other files stay. Failures are ignored.

    The retired pointer comes last, because generations without any pointer count as damaged and not as deleted.
    """
    with suppress(OSError):
        for path in generations_in(folder):
            if path.name not in keep:
                try_remove_generation(path)
    with suppress(OSError):
        if keep or not generations_in(folder):
            remove_retired_pointer(folder)
        if not keep:
            folder.rmdir()
