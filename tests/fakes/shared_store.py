"""References in memory that several catalogs share, with the faults and races of a distant store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from patchserve_server.domain.errors import PatchserveError, ReferenceNotFoundError, StorageUnavailableError
from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store import MemoryReferenceStore


class SharedMemory(MemoryReferenceStore):
    """What all servers have in common: what is stored, and the order in which it changed."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[ReferenceId] = []
        self.away = False

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        kept = super().save(reference, base)
        self.changed.append(reference.reference_id)
        return kept

    def restore(
        self, reference_id: ReferenceId, revision: Revision, base: Revision | None = None
    ) -> KeptRevision | None:
        kept = super().restore(reference_id, revision, base)
        self.changed.append(reference_id)
        return kept

    def delete(self, reference_id: ReferenceId, revision: Revision | None = None) -> None:
        super().delete(reference_id, revision)
        self.changed.append(reference_id)

    def revision_of(self, reference_id: ReferenceId) -> Revision | None:
        with suppress(ReferenceNotFoundError):
            return self.describe(reference_id).revision
        return None


class FakeSharedStore:
    """Implements `ReferenceStore` and `SharedReferences` for one server.

    Attributes:
        look_ups: the ids that were looked up.
        before_answer: called with the name of an operation when it has read or changed something, before it answers.
        lagging: what the next poll says in place of the truth, as an index that is behind.
        damaged: the ids that cannot be described.
        copies: what this server has saved or loaded, also while the store is away.
    """

    is_durable = True

    def __init__(self, memory: SharedMemory) -> None:
        self.memory = memory
        self.look_ups: list[ReferenceId] = []
        self.loads: list[ReferenceId] = []
        self.before_answer: Callable[[str], None] = lambda _operation: None
        self.lagging: dict[ReferenceId, Revision | None] = {}
        self.damaged: dict[ReferenceId, PatchserveError] = {}
        self.copies: dict[tuple[ReferenceId, Revision], Reference] = {}
        self.polls = self.maintained = 0
        self._seen = 0
        self._synced_at_s = time.monotonic()
        self._lock = threading.Lock()

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        self._reach()
        kept = self.memory.save(reference, base)
        self.copies[reference.reference_id, reference.revision] = reference
        self.before_answer("save")
        return None if kept is None else KeptRevision(kept.revision, 0)

    def restore(
        self, reference_id: ReferenceId, revision: Revision, base: Revision | None = None
    ) -> KeptRevision | None:
        self._reach()
        kept = self.memory.restore(reference_id, revision, base)
        return None if kept is None else KeptRevision(kept.revision, 0)

    def delete(self, reference_id: ReferenceId, revision: Revision | None = None) -> None:
        self._reach()
        self.memory.delete(reference_id, revision)
        self.before_answer("delete")

    def load(self, reference_id: ReferenceId) -> Reference:
        self._reach()
        self.loads.append(reference_id)
        found = self.memory.load(reference_id)
        self.copies[reference_id, found.revision] = found
        self.before_answer("load")
        return found

    def load_previous(self, reference_id: ReferenceId) -> Reference:
        self._reach()
        return self.memory.load_previous(reference_id)

    def describe(self, reference_id: ReferenceId) -> ReferenceInfo:
        self._reach()
        return self.memory.describe(reference_id)

    def describe_previous(self, reference_id: ReferenceId) -> ReferenceInfo:
        self._reach()
        return self.memory.describe_previous(reference_id)

    def forget_previous(self, reference_id: ReferenceId) -> None:
        raise AssertionError(f"{reference_id}: nothing of it is in memory")

    def list_ids(self) -> list[ReferenceId]:
        raise AssertionError("a server that shares its store must not list it")

    def poll(self) -> Mapping[ReferenceId, Revision | None]:
        self._reach()
        with self._lock:
            self.polls += 1
            new, self._seen = self.memory.changed[self._seen :], len(self.memory.changed)
            found = {each: self.memory.revision_of(each) for each in new} | self.lagging
            self.lagging = {}
        self._synced_at_s = time.monotonic()
        self.before_answer("poll")
        return found

    def look_up(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        self._reach()
        self.look_ups.append(reference_id)
        if (error := self.damaged.get(reference_id)) is not None:
            raise error.copy()
        found = None
        with suppress(ReferenceNotFoundError):
            found = self.memory.describe(reference_id)
        self.before_answer("look_up")
        return found

    def load_copy(self, info: ReferenceInfo) -> Reference | None:
        return self.copies.get((info.reference_id, info.revision))

    def synced_age_s(self) -> float:
        return time.monotonic() - self._synced_at_s

    def maintain(self) -> None:
        self._reach()
        self.maintained += 1

    def _reach(self) -> None:
        if self.memory.away:
            raise StorageUnavailableError("The store did not answer.", retry_after_s=1.0)
