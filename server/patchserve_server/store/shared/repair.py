"""The rare repair of the index: what a killed server left between a pointer and the index, or what was lost of it."""

from __future__ import annotations

from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.objects.storage import ListedObject, ObjectStorage
from patchserve_server.store.shared.index_objects import Entry, IndexObjects
from patchserve_server.store.shared.index_writer import IndexWriter, listed_pointers
from patchserve_server.store.shared.keys import ALL_SHARDS, shard_of
from patchserve_server.store.shared.surroundings import Surroundings


def repair_index(
    storage: ObjectStorage, objects: IndexObjects, writer: IndexWriter, surroundings: Surroundings
) -> tuple[ReferenceId, ...]:
    """Compares the versions of all pointers, by one LIST, with those in the index, and mends what differs.

    Returns:
        The references whose entries were looked at again.

    Raises:
        StorageUnavailableError: the store cannot be read or written.
    """
    root = objects.root()
    named = frozenset[str]() if root is None or root.shards is None else root.shards.keys()
    found = dict(zip(ALL_SHARDS, surroundings.each(objects.shard, ALL_SHARDS), strict=True))
    shards = {name: each for name, each in found.items() if each and (each.version is not None or name in named)}
    listed = listed_pointers(storage)
    entries = {name: entry for each in shards.values() for name, entry in each.entries.items()}
    differing = {name for name, each in listed.items() if not _is_same(entries.get(name), each)}
    differing |= entries.keys() - listed.keys()
    writer.mend(differing)
    for name in {shard_of(reference_id) for reference_id in differing}:
        shards.pop(name, None)
    lost = [name for name, each in shards.items() if each.content is None]
    writer.mend_root({**shards, **{name: writer.mend_shard(name, frozenset()) for name in lost}})
    return tuple(sorted(differing))


def _is_same(entry: Entry | None, listed: ListedObject) -> bool:
    return entry is not None and entry.version.is_same(listed.version)
