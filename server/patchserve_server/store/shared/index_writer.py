"""Keeps the index equal to the pointers.

The order of the steps makes it right (docs/adr/0023-shared-references.md): what a swap writes was read after the object
that it replaces, so that whoever swaps last has read last.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.objects.storage import ListedObject, ObjectStorage
from patchserve_server.store.shared.contention import attempts
from patchserve_server.store.shared.index_objects import Entry, FoundShard, IndexObjects, ShardContent
from patchserve_server.store.shared.keys import POINTERS, SHARDS, shard_of
from patchserve_server.store.shared.pointers import FoundPointer, Pointers
from patchserve_server.store.shared.records import SharedPointer, Tombstone
from patchserve_server.store.shared.surroundings import Surroundings


class IndexWriter:
    """Writes the index of a store. Changes of several threads at the same time share their swaps.

    Args:
        storage: has the references.
        objects: of the index.
        pointers: say what the index must say.
        surroundings: clocks and random numbers.
    """

    def __init__(
        self, storage: ObjectStorage, objects: IndexObjects, pointers: Pointers, surroundings: Surroundings
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._pointers = pointers
        self._surroundings = surroundings
        self._writing = threading.Lock()
        self._marking = threading.Lock()
        self._marked: set[ReferenceId] = set()

    def mark(self, reference_ids: Iterable[ReferenceId]) -> None:
        """Remembers references whose entries may be wrong, for the next `settle`."""
        with self._marking:
            self._marked.update(reference_ids)

    def mend(self, reference_ids: Iterable[ReferenceId]) -> None:
        """Makes the entries of these references right, and the root with them.

        Raises:
            StorageUnavailableError: the store cannot be read or written. The references stay marked.
        """
        wanted = set(reference_ids)
        self.mark(wanted)
        with self._writing:
            if wanted & self._marked:  # else another thread has done it
                self._settle()

    def settle(self) -> None:
        """Makes the entries of all marked references right.

        Raises:
            StorageUnavailableError: the store cannot be read or written. They stay marked.
        """
        if self._marked:
            with self._writing:
                self._settle()

    def _settle(self) -> None:
        with self._marking:
            taken, self._marked = self._marked, set()
        by_shard: dict[str, set[ReferenceId]] = defaultdict(set)
        for reference_id in taken:
            by_shard[shard_of(reference_id)].add(reference_id)
        try:
            self.mend_root({shard: self.mend_shard(shard, ids) for shard, ids in sorted(by_shard.items())})
        except BaseException:
            self.mark(taken)
            raise

    def mend_shard(self, shard: str, reference_ids: Collection[ReferenceId]) -> FoundShard:
        """Makes the entries of these references of a shard right. One that is damaged or lost is written anew.

        Returns:
            The shard as it is now.

        Raises:
            StorageUnavailableError: the store cannot be read or written.
        """
        for _ in attempts(self._surroundings, "the index"):
            found = self._objects.shard(shard)
            assert found is not None  # noqa: S101 - it is None for a conditional request only
            ids = {*reference_ids, *self._lost_from(shard)} if found.content is None else set(reference_ids)
            entries = dict(found.entries)
            for pointer in self._surroundings.each(self._pointers.read, sorted(ids)):
                _enter(entries, pointer)
            if found.content is not None and entries == found.entries:
                return found
            content = ShardContent(self._surroundings.nonce(), entries)
            if (version := self._objects.swap_shard(shard, found, content)) is not None:
                return FoundShard(content, version)
        raise AssertionError("attempts end with an error")

    def _lost_from(self, shard: str) -> set[ReferenceId]:
        """The references of a shard that is missing or damaged; none if it was never there."""
        root = self._objects.root()
        if root is not None and root.shards is not None and shard not in root.shards:
            return set()
        return {reference_id for reference_id in listed_pointers(self._storage) if shard_of(reference_id) == shard}

    def mend_root(self, seen: Mapping[str, FoundShard]) -> None:
        """Makes what the root says of these shards right.

        Args:
            seen: the shards as they were last. What is still the same is not read again.

        Raises:
            StorageUnavailableError: the store cannot be read or written.
        """
        shards = dict(seen)
        for _ in attempts(self._surroundings, "the index"):
            root = self._objects.root()
            assert root is not None  # noqa: S101 - it is None for a conditional request only
            if root.shards is None:
                shards = {**self._all_shards(), **shards}
            for shard, each in shards.items():
                shards[shard] = self._objects.shard(shard, each.version) or each
            nonces = {shard: each.content.nonce for shard, each in shards.items() if each.content is not None}
            if root.shards is not None and root.shards.items() >= nonces.items():
                return
            if self._objects.swap_root(root, {**(root.shards or {}), **nonces}, self._surroundings.nonce()):
                return

    def _all_shards(self) -> dict[str, FoundShard]:
        """The names of all shards, for a root that is missing or damaged."""
        names = (each.key.removeprefix(SHARDS) for each in self._storage.list(SHARDS))
        return {name: FoundShard(None, None) for name in names if len(name) == 2}  # noqa: PLR2004


def listed_pointers(storage: ObjectStorage) -> dict[ReferenceId, ListedObject]:
    """The pointers and tombstones of a store, by a LIST. Other objects are left out."""
    found = {}
    for listed in storage.list(POINTERS):
        with suppress(InvalidInputError):
            found[ReferenceId(listed.key.removeprefix(POINTERS))] = listed
    return found


def _enter(entries: dict[ReferenceId, Entry], found: FoundPointer) -> None:
    """Writes what a pointer says into the entries of its shard.

    A damaged pointer changes nothing. A pointer that somebody removed by hand counts as deleted; a tombstone that
    somebody removed is forgotten.
    """
    reference_id, record = found.reference_id, found.record
    if isinstance(record, SharedPointer | Tombstone) and found.version is not None:
        revision = Revision(record.current.revision) if isinstance(record, SharedPointer) else None
        entries[reference_id] = Entry(revision, record.nonce, found.version)
    elif record is None and (old := entries.pop(reference_id, None)) is not None and old.revision is not None:
        entries[reference_id] = Entry(None, old.nonce, old.version)
