"""What one server knows of the index, and how it learns what changed."""

from __future__ import annotations

from collections.abc import Iterator

from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.objects.storage import Version
from patchserve_server.store.shared.index_objects import Entries, Entry, IndexObjects
from patchserve_server.store.shared.keys import ALL_SHARDS, shard_of
from patchserve_server.store.shared.surroundings import Each


class IndexView:
    """The index as it was when it was read last. Not for several threads at once.

    It has neither a clock nor threads: whoever calls `refresh` decides when, and `each` in how many threads.

    Args:
        objects: of the index.
        each: reads several shards.
    """

    def __init__(self, objects: IndexObjects, each: Each = map) -> None:
        self._objects = objects
        self._each = each
        self._entries: dict[str, Entries] = {}  # of each shard
        self._nonces: dict[str, str] = {}  # of each shard
        self._root: Version | None = None  # when all of its shards were read
        self._is_new = True  # until it was read once
        self.is_damaged = False  # whether an object of the index was missing or damaged when it was read last

    @property
    def has_root(self) -> bool:
        """Whether the index had a root, intact or not, when it was read last."""
        return self._root is not None

    def refresh(self, changed: dict[ReferenceId, Revision | None]) -> None:
        """Reads what changed: the root, and the shards whose nonces are others.

        A reference that the index no longer names was not deleted: only a tombstone says so. So a lost index ends
        nothing that is served.

        Args:
            changed: gets what changed, None for what was deleted; what was read before an error, too.

        Raises:
            StorageUnavailableError: the index cannot be read.
        """
        root = self._objects.root(unless=self._root)
        if root is None:
            return
        self.is_damaged = root.shards is None and (root.version is not None or bool(self._nonces))
        if root.shards is not None:
            differing = [shard for shard, nonce in root.shards.items() if self._nonces.get(shard) != nonce]
        else:
            differing = list(ALL_SHARDS) if self.is_damaged else []
        for shard, found in zip(differing, self._each(self._objects.shard, differing), strict=True):
            if found is not None and found.content is not None:
                self._take(shard, found.content.entries, changed)
                self._nonces[shard] = found.content.nonce
            else:
                self.is_damaged = True
        self._root = root.version
        self._is_new = False

    def _take(self, shard: str, entries: Entries, changed: dict[ReferenceId, Revision | None]) -> None:
        old = self._entries.get(shard, {})
        for reference_id, entry in entries.items():
            before = old.get(reference_id)
            if before is None:  # a deleted one may have been looked up meanwhile, unless this is the first look
                is_news = entry.revision is not None or not self._is_new
            else:
                is_news = (before.nonce, before.revision) != (entry.nonce, entry.revision)
            if is_news:
                changed[reference_id] = entry.revision
        unnamed = {name: entry for name, entry in old.items() if name not in entries and entry.revision is not None}
        self._entries[shard] = {**entries, **unnamed} if unnamed else entries

    def find(self, reference_id: ReferenceId) -> Entry | None:
        """What the index says of a reference; None: nothing."""
        return self._entries.get(shard_of(reference_id), {}).get(reference_id)

    def __iter__(self) -> Iterator[ReferenceId]:
        """The references that exist, in no order."""
        for entries in self._entries.values():
            yield from (reference_id for reference_id, entry in entries.items() if entry.revision is not None)
