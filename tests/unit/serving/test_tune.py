"""Catalog.tune: another sensitivity is a new revision with the same bank and scorer, saved before it is served."""

from __future__ import annotations

import asyncio

import pytest
from fakes.catalogs import MAX_BYTES, CatalogFactory, current, publish
from fakes.gray import reference

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    InvalidInputError,
    MemoryBudgetError,
    ReferenceChangedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    StorageFullError,
)
from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.serving.catalog import Catalog
from patchserve_server.store import MemoryReferenceStore


class FillingStore(MemoryReferenceStore):
    """Can be full."""

    is_full = False

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        if self.is_full:
            raise StorageFullError("The disk is full.")
        return super().save(reference, base)


@pytest.fixture
def store() -> FillingStore:
    return FillingStore()


@pytest.fixture
def catalog(store: FillingStore, factory: CatalogFactory) -> Catalog:
    return factory.catalog(store)


async def test_a_tuned_reference_is_a_new_revision_of_the_same_content(catalog: Catalog, store: FillingStore) -> None:
    before = await publish(catalog, reference(images=3))
    tuned = await catalog.tune(DEFAULT_REFERENCE_ID, 2.0, before.revision)
    assert await current(catalog) == tuned
    stored = store.load(DEFAULT_REFERENCE_ID)
    assert stored.info == tuned
    assert tuned.revision == revision_of(stored.model) != before.revision
    assert stored.model.bank is before.model.bank
    assert (tuned.create_time, tuned.calibration) == (before.create_time, before.info.calibration)
    assert tuned.update_time > before.update_time
    assert tuned.thresholds().image_threshold == before.info.calibration.image_threshold / 2
    assert tuned.thresholds(1.0) == before.info.calibration, "a request's own sensitivity replaces it"
    restored = await catalog.tune(DEFAULT_REFERENCE_ID, 1.0)
    assert restored.revision == before.revision


async def test_listeners_hear_of_it_as_of_a_load(catalog: Catalog) -> None:
    await publish(catalog, reference())
    changes: list[ReferenceInfo | None] = []
    with catalog.listen(DEFAULT_REFERENCE_ID, changes.append):
        tuned = await catalog.tune(DEFAULT_REFERENCE_ID, 0.5)
    assert changes == [tuned]


async def test_what_cannot_be_tuned_stays_as_it_is(catalog: Catalog, store: FillingStore) -> None:
    before = (await publish(catalog, reference())).info
    with pytest.raises(ReferenceNotFoundError):
        await catalog.tune(ReferenceId("nobody"), 2.0)
    with pytest.raises(RevisionMismatchError):
        await catalog.tune(DEFAULT_REFERENCE_ID, 2.0, reference(level=1).revision)
    for sensitivity in (0.0, 0.09, 10.1, float("nan"), float("inf"), -1.0):
        with pytest.raises(InvalidInputError, match=r"0\.1 to 10"):
            await catalog.tune(DEFAULT_REFERENCE_ID, sensitivity)
    store.is_full = True
    with pytest.raises(StorageFullError):
        await catalog.tune(DEFAULT_REFERENCE_ID, 2.0)
    assert await current(catalog) == before
    assert store.load(DEFAULT_REFERENCE_ID).info == before


async def test_of_two_tunes_of_one_revision_exactly_one_succeeds(catalog: Catalog) -> None:
    before = await publish(catalog, reference())
    tunes = [catalog.tune(DEFAULT_REFERENCE_ID, sensitivity, before.revision) for sensitivity in (2.0, 3.0)]
    results = await asyncio.gather(*tunes, return_exceptions=True)
    (winner,) = [result for result in results if isinstance(result, ReferenceInfo)]
    assert any(isinstance(result, (ReferenceChangedError, RevisionMismatchError)) for result in results)
    assert await current(catalog) == winner


async def test_memory_counts_once_however_often_a_reference_in_use_is_tuned(
    store: FillingStore, factory: CatalogFactory
) -> None:
    catalog = factory.catalog(store, max_bytes=MAX_BYTES)
    await publish(catalog, reference("large", images=8))
    async with catalog.use(ReferenceId("large")):  # as a stream that runs for days
        for sensitivity in (2.0, 3.0, 4.0):
            async with catalog.use(ReferenceId("large")):
                await catalog.tune(ReferenceId("large"), sensitivity)
        await publish(catalog, reference("small", images=2))
        with pytest.raises(MemoryBudgetError):
            await publish(catalog, reference("third", images=3))
