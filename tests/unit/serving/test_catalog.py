"""Catalog: the store first, then memory; changes one at a time; listeners told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from fakes.gray import reference
from fakes.waiting import until

from patchserve_server.domain.errors import (
    MemoryBudgetError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    StorageFullError,
)
from patchserve_server.domain.reference import Reference
from patchserve_server.serving.catalog import Catalog
from patchserve_server.store import DiskReferenceStore, MemoryReferenceStore

BUDGET = 10_000

T = TypeVar("T")


class FailingStore(MemoryReferenceStore):
    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.damaged: set[str] = set()

    def save(self, reference: Reference) -> None:
        if self.full:
            raise StorageFullError("no room")
        super().save(reference)

    def load(self, reference_id: str) -> Reference:
        if reference_id in self.damaged:
            raise ReferenceDamagedError(reference_id, "torn")
        return super().load(reference_id)


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture
def catalog(store: FailingStore) -> Iterator[Catalog]:
    with ThreadPoolExecutor(1) as executor:
        yield Catalog(store, executor, max_bank_bytes=BUDGET)


async def test_what_is_published_serves_and_is_stored(catalog: Catalog, store: FailingStore) -> None:
    published = reference()
    await catalog.publish(published)
    assert (await catalog.get("default")) is published
    assert store.load("default") is published
    assert await catalog.get("default", published.revision) is published
    with pytest.raises(RevisionMismatchError, match="not at the expected"):
        await catalog.get("default", "0" * 64)


async def test_an_unknown_reference_says_what_to_call(catalog: Catalog) -> None:
    with pytest.raises(ReferenceNotFoundError, match="LoadReference"):
        await catalog.get("default")
    with pytest.raises(ReferenceNotFoundError):
        await catalog.delete("default", "")


async def test_a_failed_save_leaves_the_old_revision(catalog: Catalog, store: FailingStore) -> None:
    old = reference(level=1)
    await catalog.publish(old)
    store.full = True
    with pytest.raises(StorageFullError):
        await catalog.publish(reference(level=2))
    assert await catalog.get("default") is old


async def test_a_base_that_was_changed_meanwhile_is_not_overwritten(catalog: Catalog) -> None:
    old, other, mine = reference(level=1), reference(level=2), reference(level=3)
    await catalog.publish(old)
    await catalog.publish(other)
    with pytest.raises(ReferenceChangedError):
        await catalog.publish(mine, replaces=old)
    assert await catalog.get("default") is other


async def test_banks_over_the_budget_are_refused(catalog: Catalog) -> None:
    small = reference("small", images=4)
    await catalog.publish(small)
    with pytest.raises(MemoryBudgetError, match="Delete a reference"):
        await catalog.publish(reference("large", images=10))
    assert [reference.reference_id for reference in catalog.page("", 10)[0]] == ["small"]
    await catalog.publish(reference("small", images=9))  # takes the place of the old one


async def test_what_a_reference_takes_beside_its_bank_counts(store: FailingStore) -> None:
    with ThreadPoolExecutor(1) as executor:
        catalog = Catalog(store, executor, max_bank_bytes=BUDGET, bytes_per_reference=BUDGET // 3)
        await catalog.publish(reference("first"))
        await catalog.publish(reference("second"))
        await catalog.publish(reference("second", level=2))
        with pytest.raises(MemoryBudgetError, match="Delete a reference"):
            await catalog.publish(reference("third"))


async def test_references_come_back_and_a_damaged_one_is_told_by_name(store: FailingStore) -> None:
    store.save(reference("good"))
    store.save(reference("torn"))
    store.damaged = {"torn"}
    with ThreadPoolExecutor(1) as executor:
        catalog = Catalog(store, executor, max_bank_bytes=BUDGET)
        await catalog.load_all()
        assert await catalog.get("good")
        with pytest.raises(ReferenceDamagedError):
            await catalog.get("torn")
        assert await catalog.delete("torn", "") == ""
        with pytest.raises(ReferenceNotFoundError):
            await catalog.get("torn")


async def test_pages_are_in_order_and_complete(catalog: Catalog) -> None:
    for name in ("c", "a", "b"):
        await catalog.publish(reference(name))
    first, more = catalog.page("", 2)
    second, no_more = catalog.page(first[-1].reference_id, 2)
    assert [found.reference_id for found in first + second] == ["a", "b", "c"]
    assert (more, no_more) == (True, False)


async def test_listeners_hear_of_changes_until_they_leave(catalog: Catalog) -> None:
    heard: list[Reference | None] = []
    published = reference()
    with catalog.listen("default", heard.append):
        await catalog.publish(published)
        await catalog.publish(reference("other"))
        await catalog.delete("default", "")
    await catalog.publish(published)
    assert heard == [published, None]


async def test_a_save_that_has_begun_is_finished_though_its_caller_leaves(
    catalog: Catalog, store: FailingStore
) -> None:
    published = reference()
    publishing = asyncio.create_task(catalog.publish(published))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    await until(lambda: catalog.find("default") is not None)
    assert store.load("default") is published


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Catalog]:
    """With room for three references of 3 images each."""
    with ThreadPoolExecutor(1) as executor, closing(DiskReferenceStore(tmp_path / "store")) as store:
        yield Catalog(store, executor, max_bank_bytes=3 * reference(images=3).model.bank.nbytes)


def loaded(catalog: Catalog) -> list[str]:
    return [it.reference_id for it in catalog.in_memory()]


async def test_the_bank_that_was_not_used_longest_makes_room_and_is_read_again(durable: Catalog) -> None:
    for name in ("a", "b", "c"):
        await durable.publish(reference(name, images=3))
    await durable.get("a")
    await durable.publish(reference("d", images=3))
    assert loaded(durable) == ["c", "a", "d"]
    assert [facts.reference_id for facts in durable.page("", 10)[0]] == ["a", "b", "c", "d"]
    again = await durable.get("b")
    assert again.facts == durable.facts("b")
    assert loaded(durable) == ["a", "d", "b"]
    with pytest.raises(RevisionMismatchError):
        await durable.get("c", "0" * 64)
    await durable.delete("c", "")
    with pytest.raises(ReferenceNotFoundError):
        await durable.get("c")


async def test_a_bank_larger_than_the_budget_sends_none_away(durable: Catalog) -> None:
    await durable.publish(reference("a", images=3))
    with pytest.raises(MemoryBudgetError, match="load fewer images"):
        await durable.publish(reference("large", images=10))
    assert loaded(durable) == ["a"]


async def test_what_a_stream_still_has_counts(durable: Catalog) -> None:
    pinned = []
    for name in ("a", "b", "c"):
        await durable.publish(reference(name, images=3))
        pinned.append(await durable.get(name))
    with pytest.raises(MemoryBudgetError):
        await durable.publish(reference("d", images=3))
    assert await durable.get("a") is pinned[0], "no second copy of what is still there"
    pinned.clear()
    await durable.publish(reference("d", images=3))
    assert loaded(durable)[-1] == "d"


async def test_many_who_ask_for_a_bank_that_is_gone_read_it_once(
    durable: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c", "d"):
        await durable.publish(reference(name, images=3))
    reads: list[str] = []
    load = DiskReferenceStore.load

    def counted(store: DiskReferenceStore, reference_id: str) -> Reference:
        reads.append(reference_id)
        return load(store, reference_id)

    monkeypatch.setattr(DiskReferenceStore, "load", counted)
    found = await asyncio.gather(*(durable.get("a") for _ in range(5)))
    assert reads == ["a"]
    assert len(set(map(id, found))) == 1


async def test_a_bank_that_is_damaged_while_it_is_away_is_told_by_name(durable: Catalog, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        await durable.publish(reference(name, images=3))
    next((tmp_path / "store" / "a").rglob("bank.safetensors")).write_bytes(b"torn")
    for _ in range(2):
        with pytest.raises(ReferenceDamagedError, match='"a"'):
            await durable.get("a")
    assert [facts.reference_id for facts in durable.page("", 10)[0]] == ["b", "c", "d"]
    await durable.publish(reference("a", images=3))
    assert (await durable.get("a")).reference_id == "a"


async def test_a_start_with_more_banks_than_fit_serves_them_all(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor, closing(DiskReferenceStore(tmp_path / "store")) as store:
        for name in ("a", "b", "c"):
            store.save(reference(name, images=3))
        catalog = Catalog(store, executor, max_bank_bytes=reference(images=3).model.bank.nbytes)
        await catalog.load_all()
        assert loaded(catalog) == ["c"]
        for name in ("a", "b", "c"):
            assert (await catalog.get(name)).reference_id == name


class ForgetsNothing(ThreadPoolExecutor):
    """A pool whose thread has not let go of its last task yet, always."""

    def __init__(self) -> None:
        super().__init__(1)
        self.tasks: list[object] = []

    def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        self.tasks.append((fn, args, kwargs, future))
        return future


async def test_a_bank_that_a_thread_of_the_pool_has_just_read_or_saved_can_leave_at_once(tmp_path: Path) -> None:
    with ForgetsNothing() as executor, closing(DiskReferenceStore(tmp_path / "store")) as store:
        catalog = Catalog(store, executor, max_bank_bytes=reference(images=3).model.bank.nbytes)
        for name in ("a", "b", "c"):
            await catalog.publish(reference(name, images=3))
        for name in ("a", "b", "c"):
            assert (await catalog.get(name)).reference_id == name
        assert len(executor.tasks) >= 6
