"""Catalog: changes go to the store first and are made one at a time; listeners and pages show them."""

from __future__ import annotations

import asyncio

import pytest
from fakes.catalogs import MAX_BYTES, CatalogFactory, current, publish
from fakes.detector import FakeDetector
from fakes.gray import reference
from fakes.references import content
from fakes.waiting import until

from patchserve_server.domain.errors import (
    MemoryBudgetError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    StorageFullError,
)
from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.serving.catalog import Catalog
from patchserve_server.store import MemoryReferenceStore

OTHER_REVISION = Revision("0" * 64)


class FailingStore(MemoryReferenceStore):
    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.damaged: set[str] = set()

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        if self.full:
            raise StorageFullError("The disk is full.")
        return super().save(reference, base)

    def load(self, reference_id: ReferenceId) -> Reference:
        if reference_id in self.damaged:
            raise ReferenceDamagedError(reference_id, "damaged")
        return super().load(reference_id)


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture
def catalog(store: FailingStore, factory: CatalogFactory) -> Catalog:
    return factory.catalog(store)


async def test_a_published_reference_is_served_and_stored(catalog: Catalog, store: FailingStore) -> None:
    published = await publish(catalog, reference())
    assert await current(catalog) == published.info
    assert content(store.load(DEFAULT_REFERENCE_ID)) == content(published)
    assert await current(catalog, expected=published.revision) == published.info
    with pytest.raises(RevisionMismatchError, match="not at the expected"):
        await current(catalog, expected=OTHER_REVISION)


async def test_the_error_for_an_unknown_reference_names_the_method_that_loads_one(catalog: Catalog) -> None:
    with pytest.raises(ReferenceNotFoundError, match="LoadReference"):
        await current(catalog)
    with pytest.raises(ReferenceNotFoundError):
        await catalog.delete(DEFAULT_REFERENCE_ID)


async def test_after_a_failed_save_the_old_revision_is_still_served(catalog: Catalog, store: FailingStore) -> None:
    old = await publish(catalog, reference(level=1))
    store.full = True
    with pytest.raises(StorageFullError):
        await publish(catalog, reference(level=2))
    assert await current(catalog) == old.info


async def test_publish_fails_if_the_base_revision_has_changed(catalog: Catalog) -> None:
    old = await publish(catalog, reference(level=1))
    other = await publish(catalog, reference(level=2))
    with pytest.raises(ReferenceChangedError):
        await publish(catalog, reference(level=3), replaces=old.info)
    assert await current(catalog) == other.info


async def test_references_over_the_memory_limit_are_rejected(catalog: Catalog) -> None:
    await publish(catalog, reference("small", images=4))
    with pytest.raises(MemoryBudgetError, match="Delete a reference"):
        await publish(catalog, reference("large", images=10))
    assert [info.reference_id for info in (await catalog.page("", 10))[0]] == ["small"]
    await publish(catalog, reference("small", images=9))  # in place of the old one


async def test_all_memory_of_a_scorer_counts_towards_the_limit(store: FailingStore, factory: CatalogFactory) -> None:
    detector = FakeDetector(extra_nbytes=MAX_BYTES // 3)
    catalog = factory.catalog(store, detector=detector)
    for name, level in (("first", 1), ("second", 1), ("second", 2)):
        new = reference(name, level)
        await catalog.publish(new, detector.open(new.model))
    with pytest.raises(MemoryBudgetError, match="Delete a reference"):
        await publish(catalog, reference("third"))


async def test_after_a_restart_good_references_are_served_and_damaged_ones_are_reported(
    store: FailingStore, factory: CatalogFactory
) -> None:
    store.save(reference("good"))
    store.save(reference("damaged"))
    store.damaged = {"damaged"}
    catalog = factory.catalog(store)
    await catalog.load_all()
    assert await current(catalog, "good")
    for _ in range(2):
        with pytest.raises(ReferenceDamagedError):
            await current(catalog, "damaged")
    assert await catalog.delete(ReferenceId("damaged")) == ""
    with pytest.raises(ReferenceNotFoundError):
        await current(catalog, "damaged")


async def test_pages_are_sorted_and_complete(catalog: Catalog) -> None:
    for name in ("c", "a", "b"):
        await publish(catalog, reference(name))
    first, has_more = await catalog.page("", 2)
    second, has_more_after = await catalog.page(first[-1].reference_id, 2)
    assert [info.reference_id for info in first + second] == ["a", "b", "c"]
    assert (has_more, has_more_after) == (True, False)


async def test_listeners_get_every_change_of_their_reference_until_they_leave(catalog: Catalog) -> None:
    changes: list[ReferenceInfo | None] = []
    published = reference()
    with catalog.listen(DEFAULT_REFERENCE_ID, changes.append):
        await publish(catalog, published)
        await publish(catalog, reference("other"))
        await catalog.delete(DEFAULT_REFERENCE_ID)
    await publish(catalog, published)
    assert changes == [published.info, None]


async def test_a_save_that_has_started_finishes_even_if_its_caller_leaves(
    catalog: Catalog, store: FailingStore
) -> None:
    published = reference()
    publishing = asyncio.create_task(publish(catalog, published))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    await until(lambda: catalog.find(DEFAULT_REFERENCE_ID) is not None)
    assert content(store.load(DEFAULT_REFERENCE_ID)) == content(published)
