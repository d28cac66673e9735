"""Points a reference back to an intact generation."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from patchserve_server.domain.errors import PreconditionError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.check import CheckedGeneration, CheckedReference, check_reference
from patchserve_server.store.folder_lock import FolderLock
from patchserve_server.store.os_errors import storage_errors
from patchserve_server.store.pointer import find_pointer, swap_pointer, write_pointer
from patchserve_server.store.previous import pointer_after
from patchserve_server.store.publishing import staging_folder


def restore(root: Path, reference_id: str, revision: str = "") -> CheckedGeneration:
    """Make an intact generation the current one. Only the pointer changes; nothing is removed.

    Args:
        root: the folder of the store.
        reference_id: the reference.
        revision: the generation, or the beginning of its name; empty: the only intact one.

    Raises:
        InvalidInputError: it is not the id of a reference.
        StartupError: a server uses the store.
        PreconditionError: there is no such reference or generation, or it is not clear which one is meant.
        StorageFullError, StorageUnavailableError: the pointer cannot be written; the old one stays.
    """
    with closing(FolderLock(root)), storage_errors(f'restore reference "{reference_id}"'):
        folder = root / ReferenceId(reference_id)
        reference = check_reference(folder)
        if reference is None:
            raise PreconditionError(reference_id, f'There is no reference "{reference_id}" in this store.')
        generation = _chosen(reference, revision)
        if reference.problem or generation.revision != reference.revision:
            _point_to(root, folder, generation)
        return generation


def _chosen(reference: CheckedReference, revision: str) -> CheckedGeneration:
    if not revision and not reference.problem:
        revision = reference.revision  # it is current already
    found = [each for each in reference.intact_generations if each.revision.startswith(revision)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.revision[:12] for each in found)
        message = (
            f'Reference "{reference.reference_id}" has several intact revisions: {names}. Say which one: --revision.'
        )
    elif revision:
        message = f'Reference "{reference.reference_id}" has no intact revision {revision}.'
    elif not reference.is_readable:
        message = f'Reference "{reference.reference_id}" cannot be read. Make its files readable, then try again.'
    else:
        message = f'Reference "{reference.reference_id}" has no intact revision. Load its images again, or delete it.'
    raise PreconditionError(reference.reference_id, message)


def _point_to(root: Path, folder: Path, generation: CheckedGeneration) -> None:
    old = find_pointer(folder)
    create_time = update_time = generation.save_time
    operation = None
    if old is not None:
        create_time = old.create_time
        if old.previous is not None and old.previous.revision == generation.revision:
            update_time, operation = old.previous.update_time, old.previous.operation
    new = pointer_after(
        folder, old, generation.revision, create_time=create_time, update_time=update_time, operation=operation
    )
    with staging_folder(root) as staged:
        write_pointer(staged, new)
        swap_pointer(staged, folder, old)
