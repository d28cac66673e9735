"""One server's part in the index: it learns what others changed, and mends what killed servers left."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.errors import StorageUnavailableError
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.objects.storage import ObjectStorage
from patchserve_server.store.objects.store_file import open_store_file
from patchserve_server.store.shared.index_objects import IndexObjects
from patchserve_server.store.shared.index_view import IndexView
from patchserve_server.store.shared.index_writer import IndexWriter
from patchserve_server.store.shared.keys import POINTERS
from patchserve_server.store.shared.pointers import FoundPointer
from patchserve_server.store.shared.repair import repair_index
from patchserve_server.store.shared.surroundings import Surroundings

_PATIENCE_S: Final = 5.0  # how long the index may lag behind a pointer before whoever saw it mends the index


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A pointer that the index did not know."""

    nonce: str  # of the pointer
    seen_at_s: float


class Synchronizing:
    """Keeps a view of the index. It has no threads and no clocks but those of `surroundings`.

    Args:
        storage: has the references.
        objects: of the index.
        writer: of the index.
        surroundings: clocks, random numbers and threads.
    """

    def __init__(
        self, storage: ObjectStorage, objects: IndexObjects, writer: IndexWriter, surroundings: Surroundings
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._writer = writer
        self._surroundings = surroundings
        self._view = IndexView(objects, surroundings.each)
        self._polling = threading.Lock()
        self._changed: dict[ReferenceId, Revision | None] = {}  # since the last poll
        self._suspects: dict[ReferenceId, _Suspect] = {}
        self._is_new = True  # until the first poll has succeeded
        self._synced_at_s = surroundings.monotonic_s()

    def poll(self) -> Mapping[ReferenceId, Revision | None]:
        """What changed since the last call, as `SharedReferences.poll`.

        Raises:
            StartupError: it is no store of this format, or its service ignores conditions. Until the first success.
            StorageUnavailableError: the store cannot be read.
        """
        with self._polling:
            self._refresh()
            changed, self._changed = self._changed, {}
            return changed

    def ids(self) -> Sequence[ReferenceId]:
        """The references that exist now, sorted.

        Raises:
            The errors of `poll`.
        """
        with self._polling:
            self._refresh()
            return sorted(self._view)

    def synced_age_s(self) -> float:
        """The time since the last success of `poll` or `ids`."""
        return self._surroundings.monotonic_s() - self._synced_at_s

    @property
    def is_damaged(self) -> bool:
        """Whether a part of the index was missing or damaged when it was read last."""
        return self._view.is_damaged

    def notice(self, found: FoundPointer) -> None:
        """Remembers a pointer that the index does not know yet. If that stays so, a later poll mends the index."""
        if found.nonce is not None and found.nonce != self._known_nonce(found.reference_id):
            self._suspects.setdefault(found.reference_id, _Suspect(found.nonce, self._surroundings.monotonic_s()))

    def _known_nonce(self, reference_id: ReferenceId) -> str | None:
        entry = self._view.find(reference_id)
        return None if entry is None else entry.nonce

    def repair(self) -> Sequence[ReferenceId]:
        """Compares the index with all pointers, as `repair_index`.

        Raises:
            StorageUnavailableError: the store cannot be read or written.
        """
        return repair_index(self._storage, self._objects, self._writer, self._surroundings)

    def _refresh(self) -> None:
        if self._is_new:
            open_store_file(self._storage)
        self._view.refresh(self._changed)
        if self._is_new and not self._view.has_root and any(True for _ in self._storage.list(POINTERS)):
            self.repair()
            self._view.refresh(self._changed)
        self._is_new = False
        self._synced_at_s = self._surroundings.monotonic_s()
        self._mark_suspects()
        with suppress(StorageUnavailableError):  # the next poll tries again; what is read counts
            self._writer.settle()

    def _mark_suspects(self) -> None:
        for reference_id, suspect in list(self._suspects.items()):
            is_known = self._known_nonce(reference_id) == suspect.nonce
            is_late = self._surroundings.monotonic_s() - suspect.seen_at_s > _PATIENCE_S
            if is_known or is_late:
                del self._suspects[reference_id]
            if is_late and not is_known:
                self._writer.mark([reference_id])
