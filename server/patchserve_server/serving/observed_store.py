"""A store whose operations are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from patchserve_server.domain.events import Events
from patchserve_server.domain.ports import KeptRevision, ReferenceStore
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.shared_references import SharedReferences
from patchserve_server.domain.work_events import StoreUsed, told

T = TypeVar("T")


def _told(events: Events, operation: str, reference_id: ReferenceId | None, work: Callable[[], T]) -> T:
    with told(lambda *how: events.store_used(StoreUsed(operation, reference_id, *how))):
        return work()


class ObservedSharedReferences:
    """Implements `SharedReferences` in the same way.

    Args:
        shared: does the work.
        events: hears of it.
    """

    def __init__(self, shared: SharedReferences, events: Events) -> None:
        self._shared = shared
        self._events = events
        self.synced_age_s = shared.synced_age_s

    def poll(self) -> Mapping[ReferenceId, Revision | None]:
        return _told(self._events, "poll", None, self._shared.poll)

    def look_up(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        return _told(self._events, "look_up", reference_id, lambda: self._shared.look_up(reference_id))

    def load_copy(self, info: ReferenceInfo) -> Reference | None:
        return _told(self._events, "load_copy", info.reference_id, lambda: self._shared.load_copy(info))

    def maintain(self) -> None:
        _told(self._events, "maintain", None, self._shared.maintain)


class ObservedStore:
    """Implements `ports.ReferenceStore` with another one, and tells how each operation of it ended.

    Args:
        store: does the work.
        events: hears of it.
    """

    def __init__(self, store: ReferenceStore, events: Events) -> None:
        self._store = store
        self._events = events
        self.is_durable = store.is_durable

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        return self._told("save", reference.reference_id, lambda: self._store.save(reference, base))

    def load(self, reference_id: ReferenceId) -> Reference:
        return self._told("load", reference_id, lambda: self._store.load(reference_id))

    def describe(self, reference_id: ReferenceId) -> ReferenceInfo:
        return self._told("describe", reference_id, lambda: self._store.describe(reference_id))

    def load_previous(self, reference_id: ReferenceId) -> Reference:
        return self._told("load_previous", reference_id, lambda: self._store.load_previous(reference_id))

    def describe_previous(self, reference_id: ReferenceId) -> ReferenceInfo:
        return self._told("describe_previous", reference_id, lambda: self._store.describe_previous(reference_id))

    def restore(
        self, reference_id: ReferenceId, revision: Revision, base: Revision | None = None
    ) -> KeptRevision | None:
        return self._told("restore", reference_id, lambda: self._store.restore(reference_id, revision, base))

    def forget_previous(self, reference_id: ReferenceId) -> None:
        self._told("forget_previous", reference_id, lambda: self._store.forget_previous(reference_id))

    def list_ids(self) -> Sequence[ReferenceId]:
        return self._told("list_ids", None, self._store.list_ids)

    def delete(self, reference_id: ReferenceId, revision: Revision | None = None) -> None:
        self._told("delete", reference_id, lambda: self._store.delete(reference_id, revision))

    def _told(self, operation: str, reference_id: ReferenceId | None, work: Callable[[], T]) -> T:
        return _told(self._events, operation, reference_id, work)
