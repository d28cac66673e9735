"""Reads a reference of a store folder that a server may be using: nothing is written, and nothing is locked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from patchserve_server.domain.errors import ReferenceNotFoundError
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.damage import DamageError, damage_errors
from patchserve_server.store.generation import OpenGeneration
from patchserve_server.store.os_errors import storage_errors
from patchserve_server.store.pointer import read_pointer
from patchserve_server.store.publishing import has_reference

_TRIES: Final = 5  # a server may replace the revision between the pointer and its files


def read_reference(root: Path, reference_id: ReferenceId) -> Reference:
    """The current revision, verified by its digest.

    Raises:
        ReferenceNotFoundError: there is none.
        ReferenceDamagedError: its files are damaged.
        StorageUnavailableError: its files cannot be read.
    """
    what = f'The stored reference "{reference_id}" is damaged'
    with storage_errors(f'read reference "{reference_id}"'), damage_errors(reference_id, what):
        for _ in range(_TRIES - 1):
            try:
                return _read(root / reference_id, reference_id)
            except DamageError:
                continue
        return _read(root / reference_id, reference_id)


def _read(folder: Path, reference_id: ReferenceId) -> Reference:
    if not has_reference(folder):
        raise ReferenceNotFoundError(reference_id)
    pointer = read_pointer(folder)
    content = OpenGeneration(folder / pointer.revision).read()
    return Reference(
        reference_id=reference_id,
        revision=Revision(pointer.revision),
        create_time=pointer.create_time,
        update_time=pointer.update_time,
        model=content.model,
        images=content.images,
        operation=pointer.operation,
    )
