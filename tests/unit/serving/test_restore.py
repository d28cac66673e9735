"""Catalog.restore: the previous revision serves again, and the one that served is kept in its place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from fakes.catalogs import MAX_BYTES, CatalogFactory, current, publish
from fakes.detector import SPEC, fake_model
from fakes.gray import gray_input, reference
from fakes.references import content
from fakes.waiting import settle, until
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    BankMismatchError,
    MemoryBudgetError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    RevisionNotKeptError,
    StorageFullError,
)
from patchserve_server.domain.ports import KeptRevision, ReferenceStore
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.serving.catalog import Catalog
from patchserve_server.store import FolderReferenceStore, MemoryReferenceStore

DEFAULT = DEFAULT_REFERENCE_ID
OTHER_REVISION = Revision("0" * 64)


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReferenceStore]:
    if request.param == "memory":
        yield MemoryReferenceStore()
        return
    with closing(FolderReferenceStore(tmp_path / "store")) as store:
        yield store


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[FolderReferenceStore]:
    with closing(FolderReferenceStore(tmp_path / "durable")) as store:
        yield store


@pytest.fixture
def catalog(store: ReferenceStore, factory: CatalogFactory) -> Catalog:
    return factory.catalog(store)


async def bank_level(catalog: Catalog, reference_id: str = "default") -> float:
    """The gray level of the images that requests are compared with now."""
    async with catalog.use(ReferenceId(reference_id)) as opened:
        return float(opened.scorer.model.memory_bank.patches.mean())


async def test_the_previous_revision_serves_again_as_it_was(catalog: Catalog, store: ReferenceStore) -> None:
    named = replace(reference(level=1), images=(ReferenceImage("a.png", "image/png", 4, 4, 9),))
    old = await publish(catalog, named)
    assert (await catalog.info(DEFAULT)).previous_revision is None
    new = await publish(catalog, reference(level=2))
    assert (await catalog.info(DEFAULT)).previous_revision == old.revision
    restored = await catalog.restore(DEFAULT)
    assert restored == old.info == await current(catalog)
    assert (restored.previous_revision, restored.images) == (new.revision, named.images)
    assert await bank_level(catalog) == 1
    assert content(store.load(DEFAULT)) == content(named)
    again = await catalog.restore(DEFAULT, new.revision, old.revision)
    assert again == new.info == await current(catalog)
    assert await bank_level(catalog) == 2


async def test_what_cannot_be_restored_stays_as_it_is(catalog: Catalog) -> None:
    with pytest.raises(ReferenceNotFoundError):
        await catalog.restore(DEFAULT)
    old = await publish(catalog, reference(level=1))
    with pytest.raises(RevisionNotKeptError, match=r'"default" cannot be restored: no previous revision is kept\.'):
        await catalog.restore(DEFAULT)
    new = await publish(catalog, reference(level=2))
    with pytest.raises(RevisionNotKeptError, match=f"{OTHER_REVISION} .* only {old.revision} is kept"):
        await catalog.restore(DEFAULT, OTHER_REVISION)
    with pytest.raises(RevisionMismatchError):
        await catalog.restore(DEFAULT, expected_revision=old.revision)
    assert await catalog.restore(DEFAULT, new.revision) == new.info, "it is the current one: nothing to do"
    assert (await catalog.info(DEFAULT)).previous_revision == old.revision
    await catalog.delete(DEFAULT)
    await publish(catalog, reference(level=2))
    with pytest.raises(RevisionNotKeptError):
        await catalog.restore(DEFAULT)


async def test_listeners_hear_of_it_as_of_a_load(catalog: Catalog) -> None:
    old = await publish(catalog, reference(level=1))
    await publish(catalog, reference(level=2))
    changes: list[ReferenceInfo | None] = []
    with catalog.listen(DEFAULT, changes.append):
        await catalog.restore(DEFAULT)
        await catalog.restore(DEFAULT, old.revision)
    assert changes == [old.info], "and not of a restore that changes nothing"


async def test_streams_keep_the_revision_that_they_use(catalog: Catalog) -> None:
    await publish(catalog, reference(level=1))
    await publish(catalog, reference(level=2))
    async with catalog.use(DEFAULT) as opened:
        await catalog.restore(DEFAULT)
        assert opened.scorer.model.memory_bank.patches.mean() == 2
        assert await bank_level(catalog) == 1


async def test_a_tune_is_undone_with_the_same_scorer(catalog: Catalog, factory: CatalogFactory) -> None:
    """Nothing is opened, so it needs neither memory nor time."""
    old = await publish(catalog, reference(level=1, images=9))
    async with catalog.use(DEFAULT) as opened:
        tuned = await catalog.tune(DEFAULT, 2.0)
        assert await catalog.restore(DEFAULT) == old.info
        async with catalog.use(DEFAULT) as restored:
            assert restored.scorer is opened.scorer
            assert restored.info.sensitivity == 1
    assert await catalog.restore(DEFAULT) == tuned
    assert factory.detector.openings == []


async def test_of_two_restores_of_one_revision_exactly_one_succeeds(catalog: Catalog) -> None:
    old = await publish(catalog, reference(level=1))
    new = await publish(catalog, reference(level=2))
    restores = [catalog.restore(DEFAULT, expected_revision=new.revision) for _ in range(2)]
    results = await asyncio.gather(*restores, return_exceptions=True)
    assert sum(isinstance(result, ReferenceInfo) for result in results) == 1
    assert any(isinstance(result, ReferenceChangedError) for result in results)
    assert await current(catalog) == old.info


class SlowStore(MemoryReferenceStore):
    """Waits after it has read a previous revision."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.is_read = threading.Event()

    def load_previous(self, reference_id: ReferenceId) -> Reference:
        previous = super().load_previous(reference_id)
        self.is_read.set()
        assert self.gate.wait(30)
        return previous


async def test_a_change_while_the_previous_revision_is_read_wins(factory: CatalogFactory) -> None:
    store = SlowStore()
    catalog = factory.catalog(store)
    await publish(catalog, reference(level=1))
    await publish(catalog, reference(level=2))
    restoring = asyncio.create_task(catalog.restore(DEFAULT))
    await until(store.is_read.is_set)
    newest = await publish(catalog, reference(level=3))
    store.gate.set()
    with pytest.raises(ReferenceChangedError):
        await restoring
    assert await current(catalog) == newest.info


async def test_a_request_for_a_closed_reference_waits_for_a_restore_that_has_its_memory(
    durable: FolderReferenceStore, factory: CatalogFactory
) -> None:
    catalog = factory.catalog(durable, reference(images=3).model.bank.nbytes)
    old = await publish(catalog, reference("a", 1, images=3))
    await publish(catalog, reference("a", 2, images=2))
    other = await publish(catalog, reference("b", images=3))
    gate = factory.detector.open_gates[3] = threading.Event()
    restoring = asyncio.create_task(catalog.restore(ReferenceId("a")))
    await until(lambda: bool(factory.detector.openings))
    request = asyncio.create_task(current(catalog, "b"))
    await settle()
    assert not request.done()
    gate.set()
    assert (await restoring).revision == old.revision
    assert await request == other.info


async def test_a_restore_that_has_started_finishes_even_if_its_caller_leaves(catalog: Catalog) -> None:
    old = await publish(catalog, reference(level=1))
    await publish(catalog, reference(level=2))
    restoring = asyncio.create_task(catalog.restore(DEFAULT))
    await asyncio.sleep(0)
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    await until(lambda: catalog.find(DEFAULT) == old.info)


async def test_a_previous_revision_of_another_backbone_is_refused_and_the_current_one_stays(catalog: Catalog) -> None:
    model = replace(reference(level=1).model, spec=replace(SPEC, backbone="other"))
    await publish(catalog, replace(reference(level=1), model=model, revision=revision_of(model)))
    new = await publish(catalog, reference(level=2))
    with pytest.raises(BankMismatchError) as caught:
        await catalog.restore(DEFAULT)
    assert caught.value.subject == "default"
    assert await current(catalog) == new.info


async def test_a_revision_of_another_backbone_can_be_undone(store: ReferenceStore, factory: CatalogFactory) -> None:
    """As after a start with the weights that the server had before."""
    old = reference(level=1)
    model = replace(reference(level=2).model, spec=replace(SPEC, backbone="other"))
    store.save(old)
    store.save(replace(reference(level=2), model=model, revision=revision_of(model)))
    catalog = factory.catalog(store)
    await catalog.load_all()
    with pytest.raises(BankMismatchError):
        await current(catalog)
    assert await catalog.restore(DEFAULT) == old.info
    assert await bank_level(catalog) == 1


class FullStore(MemoryReferenceStore):
    def restore(
        self, reference_id: ReferenceId, revision: Revision, base: Revision | None = None
    ) -> KeptRevision | None:
        raise StorageFullError("The disk is full.")


async def test_a_restore_that_cannot_be_stored_changes_nothing(factory: CatalogFactory) -> None:
    catalog = factory.catalog(FullStore())
    await publish(catalog, reference(level=1))
    new = await publish(catalog, reference(level=2))
    with pytest.raises(StorageFullError):
        await catalog.restore(DEFAULT)
    assert await current(catalog) == new.info
    assert await bank_level(catalog) == 2
    await publish(catalog, reference("other", images=9))  # the memory that it reserved came back


async def test_a_previous_revision_that_is_damaged_is_refused_and_the_current_one_stays(
    durable: FolderReferenceStore, factory: CatalogFactory, tmp_path: Path
) -> None:
    catalog = factory.catalog(durable)
    old = await publish(catalog, reference(level=1))
    new = await publish(catalog, reference(level=2))
    bank = tmp_path / "durable/default" / old.revision / "bank.safetensors"
    content = bytearray(bank.read_bytes())
    content[-1] ^= 1
    bank.write_bytes(content)
    with pytest.raises(ReferenceDamagedError, match="does not match its revision") as caught:
        await catalog.restore(DEFAULT)
    assert caught.value.message.startswith('The previous revision of reference "default" cannot be restored: its ')
    assert await current(catalog) == new.info
    assert catalog.damaged_count == 0


async def test_a_damaged_reference_can_be_restored(
    durable: FolderReferenceStore, factory: CatalogFactory, tmp_path: Path
) -> None:
    for level in (1, 2):
        durable.save(reference(level=level))
    bank = tmp_path / "durable/default" / reference(level=2).revision / "bank.safetensors"
    bank.write_bytes(bank.read_bytes()[:-1])
    catalog = factory.catalog(durable)
    await catalog.load_all()
    with pytest.raises(ReferenceDamagedError):
        await current(catalog)
    with pytest.raises(ReferenceDamagedError):
        await catalog.restore(DEFAULT, expected_revision=reference(level=2).revision)
    restored = await catalog.restore(DEFAULT)
    assert restored == reference(level=1).info
    assert restored.previous_revision == reference(level=2).revision
    assert bank.exists(), "what is damaged may still help, so a restore removes nothing"
    with pytest.raises(ReferenceDamagedError):
        await catalog.restore(DEFAULT)
    assert await bank_level(catalog) == 1
    assert catalog.damaged_count == 0


class TestMemory:
    """A reference of N images has N times this size. MAX_BYTES are 12 images."""

    IMAGE_BYTES = reference().model.bank.nbytes

    async def test_previous_revisions_are_forgotten_before_a_load_is_rejected(self, factory: CatalogFactory) -> None:
        store = MemoryReferenceStore()
        catalog = factory.catalog(store)
        for level in (1, 2):
            for name in ("a", "b"):
                await publish(catalog, reference(name, level, images=2))
        assert all([(await catalog.info(ReferenceId(name))).previous_revision for name in "ab"])  # 8 images
        await publish(catalog, reference("c", images=5))
        assert (await catalog.info(ReferenceId("a"))).previous_revision is None, "the oldest one"
        assert (await catalog.info(ReferenceId("b"))).previous_revision is not None
        with pytest.raises(RevisionNotKeptError):
            await catalog.restore(ReferenceId("a"))
        with pytest.raises(RevisionNotKeptError):
            store.load_previous(ReferenceId("a"))
        with pytest.raises(MemoryBudgetError):
            await publish(catalog, reference("d", images=20))
        assert (await catalog.info(ReferenceId("b"))).previous_revision is not None, "nothing is forgotten in vain"
        assert await catalog.tune(ReferenceId("a"), 2.0), "it is still the same revision"
        await catalog.restore(ReferenceId("b"))
        assert await bank_level(catalog, "b") == 1

    async def test_a_revision_that_leaves_no_room_for_the_one_before_it_is_loaded(
        self, factory: CatalogFactory
    ) -> None:
        catalog = factory.catalog(MemoryReferenceStore())
        await publish(catalog, reference(level=1, images=9))
        await publish(catalog, reference(level=2, images=9))
        assert (await catalog.info(DEFAULT)).previous_revision is None
        await catalog.tune(DEFAULT, 2.0)
        assert (await catalog.info(DEFAULT)).previous_revision is not None, "it shares its bank"

    async def test_a_store_in_files_keeps_previous_revisions_without_memory(
        self, durable: FolderReferenceStore, factory: CatalogFactory
    ) -> None:
        catalog = factory.catalog(durable)
        old = await publish(catalog, reference("a", 1, images=9))
        await publish(catalog, reference("a", 2, images=9))
        await publish(catalog, reference("b", images=2))
        await catalog.restore(ReferenceId("a"))
        assert await current(catalog, "a") == old.info

    async def test_a_previous_revision_that_does_not_fit_is_refused(
        self, durable: FolderReferenceStore, factory: CatalogFactory
    ) -> None:
        catalog = factory.catalog(durable)
        await publish(catalog, reference("a", 1, images=9))
        new = await publish(catalog, reference("a", 2, images=1))
        await publish(catalog, reference("b", images=9))
        async with catalog.use(ReferenceId("b")):
            failing = catalog.restore(ReferenceId("a"))
            with pytest.raises(MemoryBudgetError):
                await failing
        assert await current(catalog, "a") == new.info


@dataclass(frozen=True)
class State:
    """What a revision is made of: the gray levels of its images, and its sensitivity."""

    levels: tuple[int, ...]
    sensitivity: float = 1.0

    def revision(self) -> Reference:
        model = fake_model(np.stack([gray_input(level) for level in self.levels]), ReferenceOptions())
        model = replace(model, sensitivity=self.sensitivity)
        return replace(reference(), model=model, revision=revision_of(model))


class World:
    """A catalog, and the current and the previous state of the reference that should be in it."""

    def __init__(self, factory: CatalogFactory, root: Path | None) -> None:
        self._factory = factory
        self._root = root
        self._stores = ExitStack()
        self._current: State | None = None
        self._previous: State | None = None
        self._open()

    def _open(self) -> None:
        store: ReferenceStore = MemoryReferenceStore()
        if self._root is not None:
            store = self._stores.enter_context(closing(FolderReferenceStore(self._root)))
        self._catalog = self._factory.catalog(store, 1000 * MAX_BYTES)

    async def make(self, change: str) -> None:
        word, _, value = change.partition(" ")
        if word == "restart" and self._root is not None:
            self.close()
            self._open()
            await self._catalog.load_all()
        elif word == "load":
            await self._publish(State((int(value),)))
        elif self._current is None:
            return
        elif word == "append":
            await self._publish(replace(self._current, levels=(*self._current.levels, 9)))
        elif word == "tune":
            await self._catalog.tune(DEFAULT, float(value))
            self._changed(replace(self._current, sensitivity=float(value)))
        elif word == "restore" and self._previous is not None:
            await self._catalog.restore(DEFAULT)
            self._current, self._previous = self._previous, self._current
        elif word == "delete":
            await self._catalog.delete(DEFAULT)
            self._current = self._previous = None

    async def _publish(self, state: State) -> None:
        await publish(self._catalog, state.revision())
        self._changed(state)

    def _changed(self, state: State) -> None:
        if state != self._current:
            self._current, self._previous = state, self._current

    async def check(self) -> None:
        if self._current is None:
            assert self._catalog.find(DEFAULT) is None
            return
        async with self._catalog.use(DEFAULT) as opened:
            levels = opened.scorer.model.bank.inputs[:, 0, 0, 0]
            assert State(tuple(levels.tolist()), opened.info.sensitivity) == self._current
        info = await self._catalog.info(DEFAULT)
        assert info.revision == self._current.revision().revision
        assert info.previous_revision == (self._previous and self._previous.revision().revision)

    def close(self) -> None:
        self._stores.close()


CHANGES = st.sampled_from(["load 1", "load 2", "append", "tune 1", "tune 2", "restore", "delete", "restart"])


@settings(max_examples=60, deadline=None)
@given(st.lists(CHANGES, max_size=10), st.booleans())
def test_any_sequence_of_changes_serves_the_right_revision(changes: list[str], durable: bool) -> None:
    async def run(world: World) -> None:
        for change in changes:
            await world.make(change)
            await world.check()

    with (
        TemporaryDirectory() as root,
        ThreadPoolExecutor(1) as storage,
        ThreadPoolExecutor(1) as opening,
        closing(World(CatalogFactory(storage, opening), Path(root) if durable else None)) as world,
    ):
        asyncio.run(run(world))
