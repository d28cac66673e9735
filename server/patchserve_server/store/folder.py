"""References in a folder, as docs/format.md specifies."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from patchserve_server.domain.errors import (
    ReferenceChangedError,
    ReferenceNotFoundError,
    RevisionNotKeptError,
    StartupError,
)
from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.damage import current_damage_errors, previous_damage_errors
from patchserve_server.store.descriptions import info_of, reference_of
from patchserve_server.store.folder_lock import FolderLock
from patchserve_server.store.generation import OpenGeneration, is_generation
from patchserve_server.store.leftovers import reference_folders, remove_leftovers
from patchserve_server.store.os_errors import startup_errors, storage_errors
from patchserve_server.store.pointer import find_pointer, read_pointer
from patchserve_server.store.previous import pointer_after
from patchserve_server.store.publishing import exchange, has_reference, publish, staged_reference, unpublish
from patchserve_server.store.records import Pointer, PreviousRevision


class FolderReferenceStore:
    """A ReferenceStore in a folder that no other server uses. Saves write in parallel and publish one at a time.

    Raises:
        StartupError: the folder cannot be used, or another server uses it.
    """

    is_durable = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = FolderLock(root)
        # Held while a pointer and its generation are opened, replaced or removed.
        self._publishing = threading.Lock()
        try:
            with startup_errors(root):
                remove_leftovers(root)
        except StartupError:
            self.close()
            raise

    def close(self) -> None:
        """Unlock the folder for other servers."""
        self._lock.close()

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        """Make this revision the current one of its reference. A kill at any moment leaves the old or the new one.

        Raises:
            ReferenceChangedError: `base` is not current.
            StorageFullError, StorageUnavailableError: the old revision stays.
            ValueError: the content could not be loaded again, or its digest is another: a bug of the caller.
        """
        folder = self._root / reference.reference_id
        with storage_errors(f'save reference "{reference.reference_id}"'), ExitStack() as stack:
            self._lock.require()
            staged = stack.enter_context(staged_reference(self._root, reference))
            stack.enter_context(self._publishing)
            self._lock.require()
            self._require(reference.reference_id, base)
            pointer = pointer_after(
                folder,
                find_pointer(folder),
                reference.revision,
                create_time=reference.create_time,
                update_time=reference.update_time,
                operation=reference.operation,
            )
            publish(staged, folder, pointer)
            return _kept(folder, pointer)

    def load(self, reference_id: ReferenceId) -> Reference:
        """The current revision, verified by its digest.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: its files are damaged.
            StorageUnavailableError: its files cannot be read.
        """
        with self._open_current(reference_id) as (pointer, kept, generation):
            content = generation.read()
        return reference_of(pointer, pointer, content, kept)

    def describe(self, reference_id: ReferenceId) -> ReferenceInfo:
        """The description of the current revision: its manifest is read, and of its arrays only the shapes.

        Raises:
            The errors of `load`.
        """
        with self._open_current(reference_id) as (pointer, kept, generation):
            return info_of(pointer, pointer, generation.manifest, generation.described(), kept)

    @contextmanager
    def _open_current(self, reference_id: ReferenceId) -> Iterator[tuple[Pointer, Revision | None, OpenGeneration]]:
        folder = self._root / reference_id
        with storage_errors(f'read reference "{reference_id}"'), current_damage_errors(reference_id):
            with self._publishing:
                pointer = self._pointer(reference_id)
                generation = OpenGeneration(folder / pointer.revision)
                kept = _kept(folder, pointer)
            yield pointer, None if kept is None else kept.revision, generation

    def load_previous(self, reference_id: ReferenceId) -> Reference:
        """The previous revision, verified by its digest.

        Raises:
            ReferenceNotFoundError: there is no such reference.
            RevisionNotKeptError: it has no previous revision.
            ReferenceDamagedError: its files, or the pointer, are damaged.
            StorageUnavailableError: its files cannot be read.
        """
        with self._open_previous(reference_id) as (pointer, previous, generation):
            content = generation.read()
        return reference_of(pointer, previous, content, None)

    def describe_previous(self, reference_id: ReferenceId) -> ReferenceInfo:
        """The description of the previous revision: its manifest is read, and of its arrays only the shapes.

        Raises:
            The errors of `load_previous`.
        """
        with self._open_previous(reference_id) as (pointer, previous, generation):
            return info_of(pointer, previous, generation.manifest, generation.described(), None)

    @contextmanager
    def _open_previous(self, reference_id: ReferenceId) -> Iterator[tuple[Pointer, PreviousRevision, OpenGeneration]]:
        with storage_errors(f'read reference "{reference_id}"'), previous_damage_errors(reference_id):
            with self._publishing:
                pointer = self._pointer(reference_id)
                if (previous := pointer.previous) is None:
                    raise RevisionNotKeptError(reference_id, None, None)
                generation = OpenGeneration(self._root / reference_id / previous.revision)
            yield pointer, previous, generation

    def restore(
        self, reference_id: ReferenceId, revision: Revision, base: Revision | None = None
    ) -> KeptRevision | None:
        """Exchange the current and the previous revision: only the pointer changes.

        Raises:
            ReferenceNotFoundError, RevisionNotKeptError: `revision` is not the previous revision.
            ReferenceChangedError: `base` is not current.
            ReferenceDamagedError: the pointer is damaged.
            StorageFullError, StorageUnavailableError: the old revision stays.
        """
        folder = self._root / reference_id
        with (
            storage_errors(f'restore reference "{reference_id}"'),
            previous_damage_errors(reference_id),
            self._publishing,
        ):
            self._lock.require()
            old = self._pointer(reference_id)
            self._require(reference_id, base)
            kept = None if old.previous is None else old.previous.revision
            if old.previous is None or kept != revision:
                raise RevisionNotKeptError(reference_id, revision, kept)
            exchanged = exchange(self._root, folder, old, old.previous)
            return _kept(folder, exchanged)

    def forget_previous(self, reference_id: ReferenceId) -> None:
        """Do nothing: previous revisions are in files, and use no memory."""

    def _pointer(self, reference_id: ReferenceId) -> Pointer:
        folder = self._root / reference_id
        if not has_reference(folder):
            self._lock.require()
            raise ReferenceNotFoundError(reference_id)
        return read_pointer(folder)

    def list_ids(self) -> Sequence[ReferenceId]:
        """The ids of all references, damaged ones too, sorted.

        Raises:
            StorageUnavailableError: the folder cannot be read.
        """
        with storage_errors("list its references"):
            return [ReferenceId(folder.name) for folder in reference_folders(self._root) if has_reference(folder)]

    def delete(self, reference_id: ReferenceId, revision: Revision | None = None) -> None:
        """Remove every revision of a reference, damaged or not.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceChangedError: `revision` is not current.
            StorageFullError, StorageUnavailableError: it cannot be removed; it can still be loaded.
        """
        folder = self._root / reference_id
        with storage_errors(f'delete reference "{reference_id}"'), self._publishing:
            self._lock.require()
            if not has_reference(folder):
                raise ReferenceNotFoundError(reference_id)
            self._require(reference_id, revision)
            unpublish(folder)

    def _require(self, reference_id: ReferenceId, base: Revision | None) -> None:
        """Raises ReferenceChangedError if another revision is current, or none. What is damaged has no revision."""
        folder = self._root / reference_id
        if base is None:
            return
        pointer = find_pointer(folder)
        if not has_reference(folder) or (pointer is not None and pointer.revision != base):
            raise ReferenceChangedError(reference_id)


def _kept(folder: Path, pointer: Pointer) -> KeptRevision | None:
    previous = pointer.previous
    if previous is None or not is_generation(folder / previous.revision):
        return None
    return KeptRevision(Revision(previous.revision), nbytes=0)
