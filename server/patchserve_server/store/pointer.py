"""The pointer: the small file that says which revision of a reference is current. No other stored file changes."""

from __future__ import annotations

from pathlib import Path

from patchserve_server.store.damage import DamageError
from patchserve_server.store.files import exists, is_plain_folder, read_small_file, try_remove, write_synced
from patchserve_server.store.records import Pointer, decode_pointer, encode_record
from patchserve_server.system.disk import sync_folder

_CURRENT = "current.json"
_DELETED = "deleted.json"
_OLD = "old.json"
_MAX_POINTER_BYTES = 4096


def has_pointer(folder: Path) -> bool:
    """Whether this folder of a reference has a pointer, intact or not."""
    return exists(folder / _CURRENT)


def read_pointer(folder: Path) -> Pointer:
    """The pointer in this folder of a reference.

    Raises:
        DamageError: the folder or its pointer breaks the format.
    """
    return _read(folder, _CURRENT)


def find_pointer(folder: Path) -> Pointer | None:
    """The pointer in this folder of a reference, if it is intact."""
    try:
        return read_pointer(folder)
    except DamageError:
        return None


def is_deleted(folder: Path) -> bool:
    """Whether the reference of this folder was deleted: it has no pointer, but an intact retired one."""
    if has_pointer(folder):
        return False
    try:
        _read(folder, _DELETED)
    except DamageError:
        return False
    return True


def _read(folder: Path, name: str) -> Pointer:
    if folder.is_symlink():
        raise DamageError("its folder is a link to another folder")
    pointer = decode_pointer(read_small_file(folder / name, "pointer", _MAX_POINTER_BYTES))
    if pointer.reference_id != folder.name:
        raise DamageError("its pointer belongs to another reference")
    return pointer


def write_pointer(staged: Path, pointer: Pointer) -> None:
    """Write a pointer to a staging folder, and wait until it is on disk."""
    write_synced(staged / _CURRENT, encode_record(pointer))


def swap_pointer(staged: Path, folder: Path, old: Pointer | None) -> None:
    """Replace the pointer by the staged one: the single step that changes the current revision.

    If the disk does not confirm the step, the old pointer is put back.
    """
    pointer = folder / _CURRENT
    if old is not None:
        write_synced(staged / _OLD, encode_record(old))
    elif is_plain_folder(pointer):
        try_remove(pointer)
    (staged / _CURRENT).replace(pointer)
    try:
        sync_folder(folder)
    except OSError:
        if old is None:
            pointer.unlink()
        else:
            (staged / _OLD).replace(pointer)
        raise


def retire_pointer(folder: Path) -> None:
    """Rename the pointer: the single step that deletes a reference.

    If the disk does not confirm the step, the pointer is restored.
    """
    remove_retired_pointer(folder)
    (folder / _CURRENT).rename(folder / _DELETED)
    try:
        sync_folder(folder)
    except OSError:
        (folder / _DELETED).rename(folder / _CURRENT)
        raise


def remove_retired_pointer(folder: Path) -> None:
    """Remove the pointer that `retire_pointer` renamed."""
    try_remove(folder / _DELETED)
