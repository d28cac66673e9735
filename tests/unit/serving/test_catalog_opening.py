"""Catalog over a durable store: references are opened once, in parallel, and closed to make room."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.catalogs import CatalogFactory, current, publish
from fakes.detector import SPEC, FakeDetector
from fakes.gray import reference
from fakes.waiting import settle, until

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    BankMismatchError,
    MemoryBudgetError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.domain.ports import KeptRevision, Scorer
from patchserve_server.domain.reference import Reference, ReferenceModel
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.catalog import Catalog
from patchserve_server.store import FolderReferenceStore

OTHER_REVISION = Revision("0" * 64)
A, B, C, D = (ReferenceId(name) for name in "abcd")


@pytest.fixture
def durable_store(tmp_path: Path) -> Iterator[FolderReferenceStore]:
    with closing(FolderReferenceStore(tmp_path / "store")) as store:
        yield store


@pytest.fixture
def durable(durable_store: FolderReferenceStore, factory: CatalogFactory) -> Catalog:
    """A catalog with memory for three references of 3 images each."""
    return factory.catalog(durable_store, 3 * reference(images=3).model.bank.nbytes)


async def test_the_least_recently_used_reference_is_closed_and_opened_again(durable: Catalog) -> None:
    for name in (A, B, C):
        await publish(durable, reference(name, images=3))
    await current(durable, "a")
    await publish(durable, reference("d", images=3))
    assert durable.open_ids() == ["c", "a", "d"]
    assert [info.reference_id for info in (await durable.page("", 10))[0]] == ["a", "b", "c", "d"]
    assert await current(durable, "b") == await durable.info(B)
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
            assert again is in_use[0], "a reference that is open is not opened again"
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
        assert old.scorer.model.memory_bank.patches[0, 0] == 1
        async with AsyncExitStack() as users:
            for name in durable.open_ids():
                await users.enter_async_context(durable.use(name))
            with pytest.raises(MemoryBudgetError):
                await publish(durable, reference("d", images=3))
    await publish(durable, reference("d", images=3))


async def test_concurrent_users_open_a_closed_reference_once(durable: Catalog, factory: CatalogFactory) -> None:
    for name in (A, B, C, D):
        await publish(durable, reference(name, images=3))
    async with AsyncExitStack() as users:
        open_references = await asyncio.gather(*(users.enter_async_context(durable.use(A)) for _ in range(5)))
    assert len(factory.detector.openings) == 1
    assert len(set(map(id, open_references))) == 1


async def test_a_reference_that_opens_slowly_delays_nothing_else(durable: Catalog, factory: CatalogFactory) -> None:
    """Not the use of an open reference, not another opening, not a change."""
    slow, quick = reference("slow", images=4), reference("quick", images=2)
    for published in (slow, quick, reference("ready", images=3), reference("last", images=3)):
        await publish(durable, published)
    assert durable.open_ids() == ["quick", "ready", "last"]
    gate = factory.detector.open_gates[4] = threading.Event()
    opening = asyncio.create_task(current(durable, "slow"))
    await until(lambda: len(factory.detector.openings) == 1)
    async with asyncio.timeout(30):
        assert await current(durable, "last")
        await durable.delete(ReferenceId("ready"))
        assert await current(durable, "quick")
        await publish(durable, reference("new", images=1))
        assert await current(durable, "new")
    assert not opening.done()
    gate.set()
    assert await opening == slow.info


async def test_opening_continues_for_the_other_users_when_one_leaves(durable: Catalog, factory: CatalogFactory) -> None:
    for name in (A, B, C, D):
        await publish(durable, reference(name, images=3))
    gate = factory.detector.open_gates[3] = threading.Event()
    leaving, staying = (asyncio.create_task(current(durable, "a")) for _ in range(2))
    await until(lambda: len(factory.detector.openings) == 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
    assert (await staying).reference_id == "a"
    assert len(factory.detector.openings) == 1


@pytest.mark.parametrize("changed_by", ["replace", "delete"])
async def test_a_change_while_a_reference_is_being_opened_affects_later_users_only(
    durable: Catalog, factory: CatalogFactory, changed_by: str
) -> None:
    for name in (A, B, C, D):
        await publish(durable, reference(name, images=3))
    gate = factory.detector.open_gates[3] = threading.Event()
    using = asyncio.create_task(current(durable, "a"))
    await until(lambda: len(factory.detector.openings) == 1)
    old = await durable.info(A)
    if changed_by == "delete":
        await durable.delete(A)
        gate.set()
        assert await using == old  # a user who came before the deletion still gets it
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
    next((tmp_path / "store" / "a").rglob("bank.safetensors")).write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(ReferenceDamagedError, match='"a"'):
            await current(durable, "a")
    assert [info.reference_id for info in (await durable.page("", 10))[0]] == ["b", "c", "d"]
    await publish(durable, reference("a", images=3))
    assert (await current(durable, "a")).reference_id == "a"


async def test_a_reference_of_another_detector_is_listed_but_cannot_be_used(
    durable_store: FolderReferenceStore, factory: CatalogFactory
) -> None:
    model = reference().model
    foreign = replace(model, spec=replace(SPEC, precision="bf16"))
    durable_store.save(replace(reference("a"), model=foreign, revision=revision_of(foreign)))
    catalog = factory.catalog(durable_store)
    await catalog.load_all()
    for _ in range(3):
        with pytest.raises(BankMismatchError) as caught:
            await current(catalog, "a")
        assert caught.value.subject == "a"
    assert len(factory.detector.openings) == 1, "the mismatch is found once"
    assert (await catalog.info(A)).spec.precision == "bf16"
    await publish(catalog, reference("a"))
    assert await current(catalog, "a")


async def test_a_server_that_starts_with_more_references_than_fit_serves_all_of_them(
    durable_store: FolderReferenceStore, factory: CatalogFactory
) -> None:
    for name in (A, B, C):
        durable_store.save(reference(name, images=3))
    catalog = factory.catalog(durable_store, reference(images=3).model.bank.nbytes)
    await catalog.load_all()
    assert catalog.open_ids() == ["a"]
    for name in (A, B, C):
        assert (await current(catalog, name)).reference_id == name


class SlowStore(FolderReferenceStore):
    """Waits at the start of a save, when the catalog has reserved its memory, and again when it has been made."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gates = (threading.Event(), threading.Event())
        self.is_at = -1
        for gate in self.gates:
            gate.set()

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        self._pass(0)
        kept = super().save(reference, base)
        self._pass(1)
        self.is_at = -1
        return kept

    def _pass(self, gate: int) -> None:
        self.is_at = gate
        assert self.gates[gate].wait(30)


@pytest.mark.parametrize("gate", [0, 1])
async def test_a_request_for_a_closed_reference_waits_for_a_save_that_has_its_memory(
    tmp_path: Path, factory: CatalogFactory, gate: int
) -> None:
    with closing(SlowStore(tmp_path / "store")) as store:
        catalog = factory.catalog(store, reference(images=3).model.bank.nbytes)
        await publish(catalog, reference("a", 1, images=3))
        await publish(catalog, reference("b", 1, images=3))
        assert catalog.open_ids() == ["b"]
        store.gates[gate].clear()
        save = asyncio.create_task(publish(catalog, reference("a", 2, images=3)))
        await until(lambda: store.is_at == gate)
        requests = [asyncio.create_task(current(catalog, name)) for name in ("a", "b")]
        await settle()
        store.gates[gate].set()
        published = await save
        a, b = [await request for request in requests]
        assert (a.revision, b) == (published.revision, await catalog.info(B))


async def test_a_reference_that_fails_to_open_at_the_start_does_not_stop_the_others(
    durable: Catalog, durable_store: FolderReferenceStore, factory: CatalogFactory, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (A, B):
        await publish(durable, reference(name, images=3))

    class FailingOnce(FakeDetector):
        def open(self, model: ReferenceModel) -> Scorer:
            if not self.openings:
                self.openings.append(model)
                raise MemoryError
            return super().open(model)

    restarted = factory.catalog(durable_store, detector=FailingOnce())
    await restarted.load_all()
    assert restarted.open_ids() == ["b"]
    assert "'a' cannot be opened" in caplog.text
    assert await current(restarted, "a") == await restarted.info(A)


async def test_a_reference_that_answers_can_be_deleted_even_if_somebody_removed_its_files(
    durable: Catalog, durable_store: FolderReferenceStore
) -> None:
    published = await publish(durable, reference("a", images=3))
    durable_store.delete(A)
    assert await durable.delete(A) == published.revision
    assert await durable.page("", 10) == ([], False)
