"""A catalog over fakes."""

from __future__ import annotations

from concurrent.futures import Executor

from fakes.detector import FakeDetector
from fakes.gray import scorer
from fakes.shared_store import FakeSharedStore
from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.domain.ports import ReferenceStore
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.known_references import KnownReferences
from patchserve_server.serving.shared_store_view import SharedStoreView, Sharing

MAX_BYTES = 10_000


class CatalogFactory:
    """Makes catalogs that share two pools, and by default one detector."""

    def __init__(self, storage: Executor, opening: Executor) -> None:
        self.detector = FakeDetector()
        self._storage = storage
        self._opening = opening

    def catalog(
        self, store: ReferenceStore, max_bytes: int = MAX_BYTES, detector: FakeDetector | None = None
    ) -> Catalog:
        detector = detector or self.detector
        return Catalog(store, detector, storage=self._storage, opening=self._opening, max_bytes=max_bytes)

    def replica(
        self,
        store: FakeSharedStore,
        max_bytes: int = MAX_BYTES,
        *,
        events: Events = NOBODY,
        known: KnownReferences | None = None,
    ) -> Catalog:
        """The catalog of one server of several that share a store."""
        return Catalog(
            store,
            self.detector,
            storage=self._storage,
            opening=self._opening,
            max_bytes=max_bytes,
            events=events,
            known=known,
            sharing=Sharing("fake://store", store, polling=self._storage, looking_up=self._opening),
        )


def view_of(replica: Catalog) -> SharedStoreView:
    assert replica.shared is not None
    return replica.shared


async def publish(catalog: Catalog, reference: Reference, replaces: ReferenceInfo | None = None) -> Reference:
    await catalog.publish(reference, scorer(reference), replaces=replaces)
    return reference


async def current(catalog: Catalog, reference_id: str = "default", expected: Revision | None = None) -> ReferenceInfo:
    """The revision that a request would use now."""
    async with catalog.use(ReferenceId(reference_id), expected) as open_reference:
        return open_reference.info
