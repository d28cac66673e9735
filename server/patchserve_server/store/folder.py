"""References in a folder, as docs/format.md specifies."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from patchserve_server.domain.errors import ReferenceDamagedError, ReferenceNotFoundError, StartupError
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.damage import DamageError
from patchserve_server.store.folder_lock import FolderLock
from patchserve_server.store.generation import OpenGeneration
from patchserve_server.store.leftovers import reference_folders, remove_leftovers
from patchserve_server.store.os_errors import startup_errors, storage_errors
from patchserve_server.store.pointer import read_pointer
from patchserve_server.store.publishing import has_reference, publish, staged_reference, unpublish
from patchserve_server.store.records import POINTER_VERSION, Pointer


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

    def save(self, reference: Reference) -> None:
        """Make this revision the current one of its reference. A kill at any moment leaves the old or the new one.

        Raises:
            StorageFullError, StorageUnavailableError: the old revision stays.
            ValueError: the content could not be loaded again, or its digest is another: a bug of the caller.
        """
        pointer = Pointer(
            format_version=POINTER_VERSION,
            reference_id=reference.reference_id,
            revision=reference.revision,
            create_time=reference.create_time,
            update_time=reference.update_time,
        )
        with storage_errors(f'save reference "{reference.reference_id}"'), ExitStack() as stack:
            self._lock.require()
            staged = stack.enter_context(staged_reference(self._root, pointer, reference))
            stack.enter_context(self._publishing)
            self._lock.require()
            publish(staged, self._root / reference.reference_id, pointer.revision)

    def load(self, reference_id: ReferenceId) -> Reference:
        """The current revision, verified by its digest.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: its files are damaged.
            StorageUnavailableError: its files cannot be read.
        """
        folder = self._root / reference_id
        try:
            with storage_errors(f'read reference "{reference_id}"'):
                with self._publishing:
                    if not has_reference(folder):
                        self._lock.require()
                        raise ReferenceNotFoundError(reference_id)
                    pointer = read_pointer(folder)
                    generation = OpenGeneration(folder / pointer.revision)
                content = generation.read()
        except DamageError as error:
            message = (
                f'The stored reference "{reference_id}" is damaged: {error}. Load it again or delete it, or have '
                "the operator look for an intact revision: `patchserve-server store check`."
            )
            raise ReferenceDamagedError(reference_id, message) from error
        return Reference(
            reference_id=reference_id,
            revision=Revision(pointer.revision),
            create_time=pointer.create_time,
            update_time=pointer.update_time,
            model=content.model,
            images=content.images,
        )

    def list_ids(self) -> Sequence[ReferenceId]:
        """The ids of all references, damaged ones too, sorted.

        Raises:
            StorageUnavailableError: the folder cannot be read.
        """
        with storage_errors("list its references"):
            return [ReferenceId(folder.name) for folder in reference_folders(self._root) if has_reference(folder)]

    def delete(self, reference_id: ReferenceId) -> None:
        """Remove every revision of a reference, damaged or not.

        Raises:
            ReferenceNotFoundError: there is none.
            StorageFullError, StorageUnavailableError: it cannot be removed; it can still be loaded.
        """
        folder = self._root / reference_id
        with storage_errors(f'delete reference "{reference_id}"'), self._publishing:
            self._lock.require()
            if not has_reference(folder):
                raise ReferenceNotFoundError(reference_id)
            unpublish(folder)
