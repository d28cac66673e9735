"""A catalog over fakes."""

from __future__ import annotations

from concurrent.futures import Executor

from fakes.detector import FakeDetector
from fakes.gray import scorer
from patchserve_server.domain.ports import ReferenceStore
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.catalog import Catalog

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


async def publish(catalog: Catalog, reference: Reference, replaces: ReferenceInfo | None = None) -> Reference:
    await catalog.publish(reference, scorer(reference), replaces=replaces)
    return reference


async def current(catalog: Catalog, reference_id: str = "default", expected: Revision | None = None) -> ReferenceInfo:
    """The revision that a request would use now."""
    async with catalog.use(ReferenceId(reference_id), expected) as open_reference:
        return open_reference.info
