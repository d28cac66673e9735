"""What killed saves and deletions leave in a store folder. Everything else that is not understood stays."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.damage import DamageError
from patchserve_server.store.files import is_plain_folder
from patchserve_server.store.generation import OpenGeneration
from patchserve_server.store.pointer import has_pointer, read_pointer
from patchserve_server.store.publishing import (
    generations_in,
    has_reference,
    remove_generations,
    remove_staging_folders,
)


def reference_folders(root: Path) -> list[Path]:
    """The folders of the store that can be references, by their names."""
    return sorted(path for path in root.iterdir() if is_reference_id(path.name))


def remove_leftovers(root: Path) -> None:
    """Remove what killed saves and deletions left. The folder must be locked, so that none of them still runs.

    A generation is removed only if an intact pointer says so: one that does not name it and names intact ones only, or
    one that a deletion retired. After a flipped bit in the pointer or in a generation that it names, the others may
    still help.
    """
    remove_staging_folders(root)
    for folder in filter(is_plain_folder, reference_folders(root)):
        with suppress(DamageError):
            if has_pointer(folder):
                remove_generations(folder, keep=_kept_revisions(folder))
            elif not has_reference(folder):
                remove_generations(folder, keep=())


def _kept_revisions(folder: Path) -> frozenset[str]:
    """The revisions that the pointer names. They are verified only if there are others, because it takes time.

    Raises:
        DamageError: the pointer or a generation that it names is damaged.
    """
    kept = read_pointer(folder).revisions
    if any(path.name not in kept for path in generations_in(folder)):
        for revision in kept:
            OpenGeneration(folder / revision).read()
    return kept


def is_reference_id(name: str) -> bool:
    """Whether a folder of this name can be a reference."""
    try:
        ReferenceId(name)
    except InvalidInputError:
        return False
    return True
