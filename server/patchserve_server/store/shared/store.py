"""References in a bucket that several servers use, as docs/format.md specifies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from patchserve_server.domain.errors import ReferenceNotFoundError, RevisionNotKeptError, StorageUnavailableError
from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.damage import DamageError, current_damage_errors, previous_damage_errors
from patchserve_server.store.descriptions import info_of, reference_of
from patchserve_server.store.objects.storage import ObjectStorage
from patchserve_server.store.os_errors import storage_errors
from patchserve_server.store.shared.cache import DigestCache
from patchserve_server.store.shared.contention import attempts
from patchserve_server.store.shared.contents import Contents
from patchserve_server.store.shared.index_objects import IndexObjects
from patchserve_server.store.shared.index_writer import IndexWriter
from patchserve_server.store.shared.lease import Leases
from patchserve_server.store.shared.maintenance import Job, Maintenance
from patchserve_server.store.shared.pointer_changes import deleted, require_base, restored, saved
from patchserve_server.store.shared.pointers import FoundPointer, Pointers
from patchserve_server.store.shared.records import SharedPointer, StoredRevision, Tombstone
from patchserve_server.store.shared.seen import SeenRevisions
from patchserve_server.store.shared.surroundings import Surroundings
from patchserve_server.store.shared.sweep import SWEEP, SWEEP_EVERY, sweep
from patchserve_server.store.shared.synchronizing import Synchronizing

REPAIR: Final = "repair"
REPAIR_EVERY: Final = timedelta(minutes=10)
_LONG_SAVE: Final = timedelta(minutes=10)  # of a server that was suspended, perhaps for longer than a grace
_READERS: Final = 32  # threads that read many small objects


class SharedReferenceStore:
    """A ReferenceStore and SharedReferences in a bucket. Several servers may change it at the same time.

    Args:
        storage: the bucket. The store closes it.
        cache: of banks and manifests, on disk.
        surroundings: clocks, random numbers and threads; None: those of the machine.
    """

    is_durable = True

    def __init__(self, storage: ObjectStorage, cache: DigestCache, surroundings: Surroundings | None = None) -> None:
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._surroundings = Surroundings(each=self._readers.map) if surroundings is None else surroundings
        self._storage = storage
        self._closing = threading.Event()
        self._pointers = Pointers(storage)
        self._contents = Contents(storage, cache, self._surroundings)
        self._seen = SeenRevisions()
        objects = IndexObjects(storage)
        self._index = IndexWriter(storage, objects, self._pointers, self._surroundings)
        self._sync = Synchronizing(storage, objects, self._index, self._surroundings)
        jobs = [Job(REPAIR, REPAIR_EVERY, self._sync.repair), Job(SWEEP, SWEEP_EVERY, self._sweep)]
        self._maintenance = Maintenance(jobs, Leases(storage, self._surroundings), self._surroundings)

    def close(self) -> None:
        """End the connections, and a sweep that is being made. What others do with the store goes on."""
        self._closing.set()
        self._storage.close()  # first: readers that wait to try again end at once
        self._readers.shutdown(cancel_futures=True)

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        """Make this revision the current one of its reference: content first, then the pointer, then the index.

        Raises:
            ReferenceChangedError: `base` is not current.
            ReferenceDamagedError: a newer server wrote what is there.
            StorageFullError: the disk of the cache is full. Nothing has changed.
            StorageUnavailableError: the store cannot be written. If it could be in part, the new revision is current.
            ValueError: the content could not be loaded again, or its digest is another: a bug of the caller.
        """
        reference_id = reference.reference_id
        with storage_errors(f'save reference "{reference_id}"'):
            require_base(self._pointers.read(reference_id), base)  # before anything is uploaded
            put_time, revision = self._surroundings.utc_now(), self._contents.put(reference)

        def change(found: FoundPointer) -> SharedPointer:
            require_base(found, base)
            nonce = self._surroundings.nonce()
            return saved(found, revision, reference.create_time, nonce, self._contents.is_damaged)

        kept = _kept(self._change(reference_id, change))
        if self._surroundings.utc_now() - put_time > _LONG_SAVE:
            with storage_errors(f'save reference "{reference_id}"'):
                self._contents.put(reference)  # whatever a sweep has taken; from now on it takes nothing of it
        return kept

    def load(self, reference_id: ReferenceId) -> Reference:
        """The current revision, verified by its digest.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: its pointer or its content is damaged or missing.
            StorageFullError, StorageUnavailableError: it cannot be read.
        """
        with self._current(reference_id) as pointer:
            content = self._contents.read(pointer.current)
            self._seen.add(reference_id, pointer.current)
            return reference_of(pointer, pointer.current, content, pointer.kept)

    def load_copy(self, info: ReferenceInfo) -> Reference | None:
        """The revision that was described so, from the copies on disk; None: they are not whole. Nothing is requested.

        Raises:
            StorageUnavailableError: the disk of the cache cannot be read.
        """
        seen = self._seen.find(info.reference_id, info.revision)
        if seen is None:
            return None
        with storage_errors(f'read reference "{info.reference_id}"'):
            content = self._contents.find_copy(info.revision, seen)
        return None if content is None else reference_of(info, info, content, info.previous_revision)

    def describe(self, reference_id: ReferenceId) -> ReferenceInfo:
        """The description of the current revision: its pointer and its manifest are read.

        Raises:
            The errors of `load`.
        """
        with self._current(reference_id) as pointer:
            current = pointer.current
            manifest = self._contents.manifest(current)
            self._seen.add(reference_id, current)
            return info_of(pointer, current, manifest, current.bank.described, pointer.kept)

    def load_previous(self, reference_id: ReferenceId) -> Reference:
        """The previous revision, verified by its digest.

        Raises:
            RevisionNotKeptError: there is none.
            The errors of `load`.
        """
        with self._previous(reference_id) as (pointer, previous):
            return reference_of(pointer, previous, self._contents.read(previous), None)

    def describe_previous(self, reference_id: ReferenceId) -> ReferenceInfo:
        """The description of the previous revision: the pointer and its manifest are read.

        Raises:
            The errors of `load_previous`.
        """
        with self._previous(reference_id) as (pointer, previous):
            return info_of(pointer, previous, self._contents.manifest(previous), previous.bank.described, None)

    def restore(
        self, reference_id: ReferenceId, revision: Revision, base: Revision | None = None
    ) -> KeptRevision | None:
        """Exchange the current and the previous revision: only the pointer and the index change.

        Raises:
            ReferenceNotFoundError, RevisionNotKeptError: `revision` is not the previous revision.
            ReferenceChangedError: `base` is not current.
            ReferenceDamagedError: the pointer is damaged.
            StorageUnavailableError: the store cannot be written, as for `save`.
        """

        def change(found: FoundPointer) -> SharedPointer:
            old = _intact(found)
            require_base(found, base)
            return restored(found, old, revision, self._surroundings.nonce())

        with previous_damage_errors(reference_id):
            return _kept(self._change(reference_id, change))

    def forget_previous(self, reference_id: ReferenceId) -> None:
        """Do nothing: previous revisions use no memory."""

    def list_ids(self) -> Sequence[ReferenceId]:
        """The ids that the index has now, sorted.

        Raises:
            StorageUnavailableError: it cannot be read.
        """
        return self._sync.ids()

    def delete(self, reference_id: ReferenceId, revision: Revision | None = None) -> None:
        """Put a tombstone in the place of the pointer. A sweep removes the content later.

        Raises:
            ReferenceNotFoundError: there is none. If it was deleted, the index knows it from now on.
            ReferenceChangedError: `revision` is not current.
            ReferenceDamagedError: a newer server wrote what is there.
            StorageUnavailableError: the store cannot be written. If it could be in part, the reference is gone.
        """

        def change(found: FoundPointer) -> Tombstone:
            if not found.is_there:
                if found.record is not None:  # perhaps by a server that was killed before it told the index
                    self._index.mend([reference_id])
                raise ReferenceNotFoundError(reference_id)
            require_base(found, revision)
            return deleted(found, self._surroundings.utc_now(), self._surroundings.nonce())

        self._change(reference_id, change)

    def poll(self) -> Mapping[ReferenceId, Revision | None]:
        """What changed since the last call: one conditional request, if nothing did.

        Raises:
            StartupError: it is no store of this format, or its service ignores conditions. Until the first success.
            StorageUnavailableError: the store cannot be read.
        """
        return self._sync.poll()

    def look_up(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        """The description of what is stored now; None: there is none.

        Raises:
            ReferenceDamagedError: its pointer or its manifest is damaged or missing.
            StorageFullError, StorageUnavailableError: it cannot be read.
        """
        try:
            return self.describe(reference_id)
        except ReferenceNotFoundError:
            return None

    def synced_age_s(self) -> float:
        """The time since the last success of `poll` or `list_ids`."""
        return self._sync.synced_age_s()

    def maintain(self) -> None:
        """Do what is due for the whole store, if no other server does it.

        Raises:
            StorageUnavailableError: the store cannot be read or written.
        """
        self._maintenance.run(urgent=[REPAIR] if self._sync.is_damaged else [])

    def _sweep(self) -> None:
        sweep(self._storage, self._surroundings, is_stopping=self._closing.is_set)

    def _change(
        self, reference_id: ReferenceId, change: Callable[[FoundPointer], SharedPointer | Tombstone]
    ) -> SharedPointer | Tombstone:
        """Swaps the pointer, which is the commit, and then tells the index."""
        for _ in attempts(self._surroundings, f'reference "{reference_id}"'):
            found = self._pointers.read(reference_id)
            new = change(found)
            with self._unsettled(reference_id, f'It is not known whether reference "{reference_id}" was changed.'):
                is_done = self._pointers.swap(found, new)
            if is_done:
                if isinstance(new, SharedPointer):
                    self._seen.add(reference_id, new.current)
                what = f'Reference "{reference_id}" was changed, but other servers may not know of it yet.'
                with self._unsettled(reference_id, what):
                    self._index.mend([reference_id])
                return new
        raise AssertionError("attempts end with an error")

    @contextmanager
    def _unsettled(self, reference_id: ReferenceId, what: str) -> Iterator[None]:
        """Says what a failure leaves. The next poll tells the index of the reference, if it was changed."""
        try:
            yield
        except StorageUnavailableError as error:
            self._index.mark([reference_id])
            raise StorageUnavailableError(f"{error.message} {what}", error.retry_after_s) from error
        except BaseException:
            self._index.mark([reference_id])
            raise

    @contextmanager
    def _current(self, reference_id: ReferenceId) -> Iterator[SharedPointer]:
        with storage_errors(f'read reference "{reference_id}"'), current_damage_errors(reference_id):
            yield self._read(reference_id)

    @contextmanager
    def _previous(self, reference_id: ReferenceId) -> Iterator[tuple[SharedPointer, StoredRevision]]:
        with storage_errors(f'read reference "{reference_id}"'), previous_damage_errors(reference_id):
            pointer = self._read(reference_id)
            if pointer.previous is None:
                raise RevisionNotKeptError(reference_id, None, None)
            yield pointer, pointer.previous

    def _read(self, reference_id: ReferenceId) -> SharedPointer:
        found = self._pointers.read(reference_id)
        self._sync.notice(found)
        return _intact(found)


def _intact(found: FoundPointer) -> SharedPointer:
    if isinstance(found.record, DamageError):
        raise found.record
    if found.pointer is None:
        raise ReferenceNotFoundError(found.reference_id)
    return found.pointer


def _kept(pointer: SharedPointer | Tombstone) -> KeptRevision | None:
    if isinstance(pointer, Tombstone) or pointer.kept is None:
        return None
    return KeptRevision(Revision(pointer.kept), nbytes=0)
