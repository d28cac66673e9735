"""An error keeps neither a bank nor an image in memory: nothing waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from fakes.detector import SPEC, FakeDetector
from fakes.gray import reference, scorer
from fakes.waiting import settle, until

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    BankMismatchError,
    MemoryBudgetError,
    PatchserveError,
    StorageUnavailableError,
    StreamProtocolError,
    UndecodableImageError,
)
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import OutputOptions
from patchserve_server.domain.ports import KeptRevision, ReferenceStore
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.domain.stream import Frame, StreamConfig, StreamReady
from patchserve_server.serving.admission import Admission, Capacity
from patchserve_server.serving.application import Application
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.frame_queue import FrameQueue
from patchserve_server.serving.streams import Streams
from patchserve_server.store import MemoryReferenceStore

CONFIG = StreamConfig(DEFAULT_REFERENCE_ID, None, OutputOptions(), max_in_flight=8)


class CopyingStore(MemoryReferenceStore):
    """Gives a new copy of a bank each time, as a disk does, and remembers it weakly."""

    is_durable = True

    def __init__(self) -> None:
        super().__init__()
        self.banks: list[weakref.ref[np.ndarray]] = []
        self.fails = False

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        kept = super().save(reference, base)
        return None if kept is None else replace(kept, nbytes=0)

    def load(self, reference_id: ReferenceId) -> Reference:
        return self._copy(super().load(reference_id))

    def load_previous(self, reference_id: ReferenceId) -> Reference:
        return self._copy(super().load_previous(reference_id))

    def _copy(self, stored: Reference) -> Reference:
        bank = replace(stored.model.bank, inputs=stored.model.bank.inputs.copy())
        self.banks.append(weakref.ref(bank.inputs))
        if self.fails:
            raise StorageUnavailableError("the disk is gone")
        return replace(stored, model=replace(stored.model, bank=bank))


class RefusingInspector:
    async def inspect(self, *_: object, **__: object) -> Any:
        raise UndecodableImageError("not an image")

    answer = inspect_again = draw = inspect


def alive(references: list[weakref.ref[Any]]) -> int:
    return sum(one() is not None for one in references)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def catalog_of(store: ReferenceStore, pool: ThreadPoolExecutor, max_bytes: int = 2**30) -> Catalog:
    return Catalog(store, FakeDetector(), storage=pool, opening=pool, max_bytes=max_bytes)


async def test_references_of_another_detector_leave_memory(pool: ThreadPoolExecutor) -> None:
    store = CopyingStore()
    for level in range(5):
        model = replace(reference(level=level).model, spec=replace(SPEC, precision="bf16"))
        store.save(replace(reference(f"r{level}"), model=model, revision=revision_of(model)))
    catalog = catalog_of(store, pool)
    await catalog.load_all()
    with pytest.raises(BankMismatchError):
        async with catalog.use(ReferenceId("r0")):
            pass
    catalog._opener._detector.openings.clear()  # type: ignore[attr-defined]
    await until(lambda: not alive(store.banks))  # the pool's thread lets go of its last task a moment later


async def test_an_opening_that_fails_keeps_neither_bank_nor_image(pool: ThreadPoolExecutor) -> None:
    store = CopyingStore()
    for name in ("a", "b"):
        store.save(reference(name))
    catalog = catalog_of(store, pool, max_bytes=reference().model.bank.nbytes)
    await catalog.load_all()
    assert catalog.open_ids() == ["a"]
    store.banks.clear()
    store.fails = True
    image = np.zeros(100)
    images = [weakref.ref(image)]

    async def infer(image: np.ndarray) -> None:
        async with catalog.use(ReferenceId("b")):
            assert image is None, "not reached"

    with pytest.raises(StorageUnavailableError):
        await infer(image)
    del image
    await until(lambda: not alive([*images, *store.banks]))


@pytest.mark.parametrize("failure", ["another precision", "no room", "unreadable"])
async def test_a_restore_that_fails_keeps_no_bank(pool: ThreadPoolExecutor, failure: str) -> None:
    store = CopyingStore()
    old = reference(level=1, images=3)
    if failure == "another precision":
        model = replace(old.model, spec=replace(SPEC, precision="bf16"))
        old = replace(old, model=model, revision=revision_of(model))
    store.save(old)
    new = reference(level=2)
    catalog = catalog_of(store, pool, max_bytes=(1 if failure == "no room" else 9) * old.model.bank.nbytes - 1)
    await catalog.load_all()
    await catalog.publish(new, scorer(new))
    store.banks.clear()
    store.fails = failure == "unreadable"
    with pytest.raises((BankMismatchError, MemoryBudgetError, StorageUnavailableError)):
        await catalog.restore(DEFAULT_REFERENCE_ID)
    catalog._opener._detector.openings.clear()  # type: ignore[attr-defined]
    await until(lambda: not alive(store.banks))
    assert await catalog.info(DEFAULT_REFERENCE_ID) == new.info


async def test_what_was_served_before_a_restore_leaves_memory(pool: ThreadPoolExecutor) -> None:
    catalog = catalog_of(CopyingStore(), pool)
    scorers = []
    for level in (1, 2):
        made = reference(level=level)
        opened = scorer(made)
        scorers.append(weakref.ref(opened))
        await catalog.publish(made, opened)
    del opened
    await catalog.restore(DEFAULT_REFERENCE_ID)
    await until(lambda: not alive(scorers))


@pytest.mark.parametrize("ended_by", ["deletion", "drain", "protocol"])
async def test_a_stream_that_ends_with_an_error_lets_go_of_its_bank(pool: ThreadPoolExecutor, ended_by: str) -> None:
    catalog = catalog_of(MemoryReferenceStore(), pool)
    published = reference()
    opened = scorer(published)
    scorers = [weakref.ref(opened)]
    await catalog.publish(published, opened)
    del opened
    admission = Admission("image", Capacity(8, 2**30), share=1.0, largest=Capacity(1, 2**20))
    streams = Streams(catalog, RefusingInspector(), admission, max_active=2)

    async def frames() -> AsyncIterator[Frame]:
        if ended_by == "protocol":
            raise StreamProtocolError("wrong order")
        await asyncio.Event().wait()
        yield Frame("", None, b"")

    async def stream() -> None:
        async for event in streams.run("caller", CONFIG, frames()):
            if isinstance(event, StreamReady) and ended_by == "deletion":
                await catalog.delete(DEFAULT_REFERENCE_ID)
            elif isinstance(event, StreamReady) and ended_by == "drain":
                streams.drain()

    with pytest.raises(PatchserveError):
        await stream()
    if ended_by != "deletion":
        await catalog.delete(DEFAULT_REFERENCE_ID)
    await until(lambda: not alive(scorers))


async def test_a_failed_frame_keeps_no_image_until_its_outcome_is_taken() -> None:
    admission = Admission("image", Capacity(64, 2**30), share=1.0, largest=Capacity(1, 2**20))
    held: list[np.ndarray] = [np.zeros(100, np.uint8) for _ in range(8)]
    images = [weakref.ref(image) for image in held]

    async def inspect(_frame: Frame) -> Any:
        raise UndecodableImageError("not an image")

    with FrameQueue(CONFIG, inspect, max_active=8, admission=admission, flow=FlowKey("caller", 1)) as queue:
        while held:
            await queue.put(Frame("", None, held.pop()))  # type: ignore[arg-type] # bytes have no weak references
        await settle()
        assert alive(images) == 0


async def test_a_failed_batch_keeps_no_image(pool: ThreadPoolExecutor) -> None:
    catalog = catalog_of(MemoryReferenceStore(), pool)
    published = reference()
    await catalog.publish(published, scorer(published))
    unused: dict[str, Any] = dict.fromkeys(field.name for field in fields(Application))
    application = Application(**unused | {"catalog": catalog, "inspector": RefusingInspector()})
    admission = Admission("image", Capacity(8, 2**30), share=1.0, largest=Capacity(8, 2**20))
    held = [np.zeros((4, 4, 3), np.uint8) for _ in range(2)]
    images = [weakref.ref(image) for image in held]

    async def infer(images: list[np.ndarray]) -> None:
        sent = [SentImage(RawFrame(image)) for image in images]
        with admission.acquire("caller", Capacity(2)) as permit:
            await application.infer_batch(permit, DEFAULT_REFERENCE_ID, None, sent, OutputOptions())

    with pytest.raises(UndecodableImageError):
        await infer(held)
    held.clear()
    await settle()
    assert alive(images) == 0
