"""Catalog: the store first, then memory; changes one at a time; openings once and beside each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.detector import SPEC, FakeDetector
from fakes.gray import reference, scorer
from fakes.waiting import until

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    BankMismatchError,
    MemoryBudgetError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    StorageFullError,
)
from patchserve_server.domain.ports import ReferenceStore
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.serving.catalog import Catalog
from patchserve_server.store import FolderReferenceStore, MemoryReferenceStore

BUDGET = 10_000
OTHER_REVISION = Revision("0" * 64)
A, B, C, D = (ReferenceId(name) for name in "abcd")


class FailingStore(MemoryReferenceStore):
    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.damaged: set[str] = set()

    def save(self, reference: Reference) -> None:
        if self.full:
            raise StorageFullError("no room")
        super().save(reference)

    def load(self, reference_id: ReferenceId) -> Reference:
        if reference_id in self.damaged:
            raise ReferenceDamagedError(reference_id, "torn")
        return super().load(reference_id)


class Pools:
    """The pools of a catalog over fakes."""

    def __init__(self, storage: ThreadPoolExecutor, opening: ThreadPoolExecutor) -> None:
        self.storage, self.opening = storage, opening
        self.detector = FakeDetector()

    def catalog(self, store: ReferenceStore, max_bytes: int = BUDGET, detector: FakeDetector | None = None) -> Catalog:
        detector = detector or self.detector
        return Catalog(store, detector, storage=self.storage, opening=self.opening, max_bytes=max_bytes)


@pytest.fixture
def pools() -> Iterator[Pools]:
    with ThreadPoolExecutor(1) as storage, ThreadPoolExecutor(2) as opening:
        yield Pools(storage, opening)


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture
def catalog(store: FailingStore, pools: Pools) -> Catalog:
    return pools.catalog(store)


@pytest.fixture
def durable_store(tmp_path: Path) -> Iterator[FolderReferenceStore]:
    with closing(FolderReferenceStore(tmp_path / "store")) as store:
        yield store


@pytest.fixture
def durable(durable_store: FolderReferenceStore, pools: Pools) -> Catalog:
    """With room for three references of 3 images each."""
    return pools.catalog(durable_store, 3 * reference(images=3).model.bank.nbytes)


async def publish(catalog: Catalog, published: Reference, replaces: ReferenceInfo | None = None) -> Reference:
    await catalog.publish(published, scorer(published), replaces=replaces)
    return published


async def current(catalog: Catalog, reference_id: str = "default", expected: Revision | None = None) -> ReferenceInfo:
    """The revision that a request would use now."""
    async with catalog.use(ReferenceId(reference_id), expected) as opened:
        return opened.info


async def test_a_published_reference_is_served_and_stored(catalog: Catalog, store: FailingStore) -> None:
    published = await publish(catalog, reference())
    assert await current(catalog) == published.info
    assert store.load(DEFAULT_REFERENCE_ID) is published
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
    assert [info.reference_id for info in catalog.page("", 10)[0]] == ["small"]
    await publish(catalog, reference("small", images=9))  # in place of the old one


async def test_all_memory_of_a_scorer_counts_towards_the_limit(store: FailingStore, pools: Pools) -> None:
    detector = FakeDetector(extra_nbytes=BUDGET // 3)
    catalog = pools.catalog(store, detector=detector)
    for name, level in (("first", 1), ("second", 1), ("second", 2)):
        published = reference(name, level)
        await catalog.publish(published, detector.open(published.model))
    with pytest.raises(MemoryBudgetError, match="Delete a reference"):
        await publish(catalog, reference("third"))


async def test_after_a_restart_good_references_are_served_and_damaged_ones_are_reported(
    store: FailingStore, pools: Pools
) -> None:
    store.save(reference("good"))
    store.save(reference("torn"))
    store.damaged = {"torn"}
    catalog = pools.catalog(store)
    await catalog.load_all()
    assert await current(catalog, "good")
    for _ in range(2):
        with pytest.raises(ReferenceDamagedError):
            await current(catalog, "torn")
    assert await catalog.delete(ReferenceId("torn")) == ""
    with pytest.raises(ReferenceNotFoundError):
        await current(catalog, "torn")


async def test_pages_are_sorted_and_complete(catalog: Catalog) -> None:
    for name in ("c", "a", "b"):
        await publish(catalog, reference(name))
    first, more = catalog.page("", 2)
    second, no_more = catalog.page(first[-1].reference_id, 2)
    assert [info.reference_id for info in first + second] == ["a", "b", "c"]
    assert (more, no_more) == (True, False)


async def test_listeners_get_every_change_of_their_reference_until_they_leave(catalog: Catalog) -> None:
    heard: list[ReferenceInfo | None] = []
    published = reference()
    with catalog.listen(DEFAULT_REFERENCE_ID, heard.append):
        await publish(catalog, published)
        await publish(catalog, reference("other"))
        await catalog.delete(DEFAULT_REFERENCE_ID)
    await publish(catalog, published)
    assert heard == [published.info, None]


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
    assert store.load(DEFAULT_REFERENCE_ID) is published


async def test_the_least_recently_used_reference_is_closed_and_opened_again(durable: Catalog) -> None:
    for name in (A, B, C):
        await publish(durable, reference(name, images=3))
    await current(durable, "a")
    await publish(durable, reference("d", images=3))
    assert durable.open_ids() == ["c", "a", "d"]
    assert [info.reference_id for info in durable.page("", 10)[0]] == ["a", "b", "c", "d"]
    assert await current(durable, "b") == durable.info(B)
    assert durable.open_ids() == ["a", "d", "b"]
    with pytest.raises(RevisionMismatchError):
        await current(durable, "c", OTHER_REVISION)
    await durable.delete(C)
    with pytest.raises(ReferenceNotFoundError):
        await current(durable, "c")


async def test_a_reference_that_can_never_fit_does_not_close_others(durable: Catalog) -> None:
    await publish(durable, reference("a", images=3))
    with pytest.raises(MemoryBudgetError, match="load fewer images"):
        await publish(durable, reference("large", images=10))
    assert durable.open_ids() == ["a"]


async def test_a_reference_in_use_stays_open_and_counts_towards_the_limit(durable: Catalog) -> None:
    async with AsyncExitStack() as users:
        in_use = []
        for name in (A, B, C):
            await publish(durable, reference(name, images=3))
            in_use.append(await users.enter_async_context(durable.use(name)))
        with pytest.raises(MemoryBudgetError):
            await publish(durable, reference("d", images=3))
        async with durable.use(A) as again:
            assert again is in_use[0], "it is not opened twice"
    await publish(durable, reference("d", images=3))
    assert durable.open_ids() == ["c", "a", "d"]


@pytest.mark.parametrize("ended_by", ["replace", "delete"])
async def test_a_replaced_or_deleted_revision_counts_until_its_last_user_leaves(
    durable: Catalog, ended_by: str
) -> None:
    await publish(durable, reference("a", level=1, images=3))
    async with durable.use(A) as old:
        if ended_by == "delete":
            await durable.delete(A)
        else:
            await publish(durable, reference("a", level=2, images=3))
        await publish(durable, reference("b", images=3))
        if ended_by == "delete":
            await publish(durable, reference("c", images=3))
        assert old.scorer.model.bank.patches[0, 0] == 1
        async with AsyncExitStack() as users:
            for name in durable.open_ids():
                await users.enter_async_context(durable.use(name))
            with pytest.raises(MemoryBudgetError):
                await publish(durable, reference("d", images=3))
    await publish(durable, reference("d", images=3))


async def test_concurrent_users_open_a_closed_reference_once(durable: Catalog, pools: Pools) -> None:
    for name in (A, B, C, D):
        await publish(durable, reference(name, images=3))
    async with AsyncExitStack() as users:
        opened = await asyncio.gather(*(users.enter_async_context(durable.use(A)) for _ in range(5)))
    assert len(pools.detector.openings) == 1
    assert len(set(map(id, opened))) == 1


async def test_a_reference_that_opens_slowly_delays_nothing_else(durable: Catalog, pools: Pools) -> None:
    """Neither a ready reference, nor another opening, nor a change."""
    slow, quick = reference("slow", images=4), reference("quick", images=2)
    for published in (slow, quick, reference("ready", images=3), reference("last", images=3)):
        await publish(durable, published)
    assert durable.open_ids() == ["quick", "ready", "last"]
    gate = pools.detector.open_gates[4] = threading.Event()
    opening = asyncio.create_task(current(durable, "slow"))
    await until(lambda: len(pools.detector.openings) == 1)
    async with asyncio.timeout(30):
        assert await current(durable, "last")
        await durable.delete(ReferenceId("ready"))
        assert await current(durable, "quick")
        await publish(durable, reference("new", images=1))
        assert await current(durable, "new")
    assert not opening.done()
    gate.set()
    assert await opening == slow.info


async def test_opening_continues_for_the_other_users_when_one_leaves(durable: Catalog, pools: Pools) -> None:
    for name in (A, B, C, D):
        await publish(durable, reference(name, images=3))
    gate = pools.detector.open_gates[3] = threading.Event()
    leaving, staying = (asyncio.create_task(current(durable, "a")) for _ in range(2))
    await until(lambda: len(pools.detector.openings) == 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
    assert (await staying).reference_id == "a"
    assert len(pools.detector.openings) == 1


@pytest.mark.parametrize("changed_by", ["replace", "delete"])
async def test_a_change_while_a_reference_is_being_opened_affects_later_users_only(
    durable: Catalog, pools: Pools, changed_by: str
) -> None:
    for name in (A, B, C, D):
        await publish(durable, reference(name, images=3))
    gate = pools.detector.open_gates[3] = threading.Event()
    using = asyncio.create_task(current(durable, "a"))
    await until(lambda: len(pools.detector.openings) == 1)
    old = durable.info(A)
    if changed_by == "delete":
        await durable.delete(A)
        gate.set()
        assert await using == old  # who asked before still gets it
        with pytest.raises(ReferenceNotFoundError):
            await current(durable, "a")
    else:
        new = await publish(durable, reference("a", level=7, images=1))
        gate.set()
        assert await using == old
        assert await current(durable, "a") == new.info


async def test_a_reference_damaged_while_it_was_closed_is_reported(durable: Catalog, tmp_path: Path) -> None:
    for name in (A, B, C, D):
        await publish(durable, reference(name, images=3))
    next((tmp_path / "store" / "a").rglob("bank.safetensors")).write_bytes(b"torn")
    for _ in range(2):
        with pytest.raises(ReferenceDamagedError, match='"a"'):
            await current(durable, "a")
    assert [info.reference_id for info in durable.page("", 10)[0]] == ["b", "c", "d"]
    await publish(durable, reference("a", images=3))
    assert (await current(durable, "a")).reference_id == "a"


async def test_a_reference_of_another_detector_is_listed_but_cannot_be_used(
    durable_store: FolderReferenceStore, pools: Pools
) -> None:
    model = reference().model
    foreign = replace(model, spec=replace(SPEC, precision="bf16"))
    durable_store.save(replace(reference("a"), model=foreign, revision=revision_of(foreign)))
    catalog = pools.catalog(durable_store)
    await catalog.load_all()
    for _ in range(3):
        with pytest.raises(BankMismatchError) as caught:
            await current(catalog, "a")
        assert caught.value.subject == "a"
    assert len(pools.detector.openings) == 1, "it is found once"
    assert catalog.info(A).spec.precision == "bf16"
    await publish(catalog, reference("a"))
    assert await current(catalog, "a")


async def test_a_server_that_starts_with_more_references_than_fit_serves_all_of_them(
    durable_store: FolderReferenceStore, pools: Pools
) -> None:
    for name in (A, B, C):
        durable_store.save(reference(name, images=3))
    catalog = pools.catalog(durable_store, reference(images=3).model.bank.nbytes)
    await catalog.load_all()
    assert catalog.open_ids() == ["a"]
    for name in (A, B, C):
        assert (await current(catalog, name)).reference_id == name
