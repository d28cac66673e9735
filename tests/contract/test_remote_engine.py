"""The engine over a link: what a front sees of it is what the engine itself would say."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from fakes.certificates import Authority
from fakes.detector import FakeDetector
from fakes.gray import gray_input, gray_png
from fakes.images import card, encoded, noise
from fakes.jpegs import gray_file
from fakes.waiting import settle, until
from PIL import Image

from patchserve_server.access.certificates import reloading_identity
from patchserve_server.access.link_tls import LinkTls
from patchserve_server.domain.drift import UNKNOWN, DriftState
from patchserve_server.domain.errors import (
    EngineLostError,
    InvalidInputError,
    PatchserveError,
    PreconditionError,
    ReferenceFileError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    RevisionNotKeptError,
    UndecodableImageError,
)
from patchserve_server.domain.events import NOBODY
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.domain.load_cost import LoadedReference
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.reference import CalibrationMethod, ReferenceOperation, ScoreSpread
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.domain.reference_image import NamedImage
from patchserve_server.domain.reference_options import RequestedOptions, ScoringProfile
from patchserve_server.fronts import link
from patchserve_server.fronts.connected_fronts import ConnectedFronts
from patchserve_server.fronts.endpoints import connect, listen
from patchserve_server.fronts.engine_session import Engine, EngineSession
from patchserve_server.fronts.pixels import SLOT_BYTES, SLOTS, SharedPixels
from patchserve_server.fronts.remote_engine import RemoteEngine
from patchserve_server.imaging import ImageLimits, device_file
from patchserve_server.serving.admission import Admission, Capacity
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.drawing import BatchedDrawing
from patchserve_server.serving.drift import DriftWatch
from patchserve_server.serving.fairness import FairSemaphore, FlowKey
from patchserve_server.serving.peers import Peers
from patchserve_server.serving.reference_builder import LoadOptions, ReferenceBuilder
from patchserve_server.serving.reference_images import ReferenceImages
from patchserve_server.serving.reference_transfer import ImportOptions, ReferenceTransfer
from patchserve_server.store import ExportedFiles, MemoryReferenceStore

BELT = ReferenceId("belt")
VERSION = "1"
MAX_BYTES = 2**22


class EngineBench:
    """An engine that listens, and the fronts that a test connects to it."""

    def __init__(self, pool: ThreadPoolExecutor, stack: AsyncExitStack, address: str) -> None:
        self.detector, self.fronts = FakeDetector(decode="device"), ConnectedFronts()
        self._stack, self.address = stack, address
        self.catalog = Catalog(
            MemoryReferenceStore(),
            self.detector,
            storage=pool,
            opening=pool,
            max_bytes=MAX_BYTES,
            known=self.fronts.known,
            everybody_knows=self.fronts.everybody_knows,
        )
        self._files = [SharedPixels.create() for _ in range(2)]
        for file in self._files:
            stack.callback(os.close, file)
        builder = ReferenceBuilder(
            self.detector,
            self.catalog,
            images=pool,
            fitting=pool,
            limits=ImageLimits(),
            max_images=10,
            max_bytes=MAX_BYTES,
        )
        self.drawing = BatchedDrawing(self.detector, pool, workers=1, max_batch_size=4)
        self.engine = Engine(
            version=VERSION,
            detector=self.detector.info,
            catalog=self.catalog,
            batcher=Batcher(self.detector, pool, workers=1, max_batch_size=4, max_queue_delay_s=0),
            drawing=self.drawing,
            builder=builder,
            reference_images=ReferenceImages(self.catalog, pool, FairSemaphore(4)),
            transfer=ReferenceTransfer(self.catalog, self.detector, ExportedFiles(None), pool, max_bytes=MAX_BYTES),
            drift=DriftWatch(self.catalog.find, pool, self.fronts.tell_drift),
            fronts=self.fronts,
            pixels=[SharedPixels(file) for file in self._files],
        )
        self.server_tls: ssl.SSLContext | None = None
        self.client_tls: ssl.SSLContext | None = None

    async def listen(self) -> None:
        server = await listen(lambda: EngineSession(self.engine).link.connection, self.address, self.server_tls)
        self._stack.callback(server.close)
        if not self.address.startswith("unix"):
            self.address = f"localhost:{server.sockets[0].getsockname()[1]}"

    async def front(
        self, number: int = 0, version: str = VERSION, *, shares_memory: bool | None = None
    ) -> RemoteEngine:
        is_near = self.address.startswith("unix") if shares_memory is None else shares_memory
        pixels = SharedPixels(self._files[number]) if is_near else None
        front = RemoteEngine(pixels, NOBODY, Peers())
        self._stack.callback(front.close)
        info = await front.connect(
            self.address, version=version, front=number if is_near else None, tls=self.client_tls
        )
        assert info == self.detector.info
        return front


@asynccontextmanager
async def engine_bench(address: str) -> AsyncIterator[EngineBench]:
    with ThreadPoolExecutor(8) as pool:
        async with AsyncExitStack() as stack:
            bench = EngineBench(pool, stack, address)
            stack.callback(bench.detector.gate.set)
            stack.callback(bench.detector.fit_gate.set)
            stack.callback(bench.detector.drawing_gate.set)
            yield bench


@pytest.fixture(params=["on this machine", "elsewhere"])
async def bench(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[EngineBench]:
    """An engine that shares memory with its fronts, or one that is reached over TCP with certificates of both sides."""
    is_near = request.param == "on this machine"
    async with engine_bench(f"unix:{tmp_path}/engine" if is_near else "localhost:0") as made:
        if not is_near:
            made.server_tls, made.client_tls = tls_of_both(Authority(), tmp_path)
        await made.listen()
        yield made


def tls_of_both(authority: Authority, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What an engine and its fronts need, with certificates that one authority signs."""
    ca = folder / "ca.pem"
    ca.write_bytes(authority.certificate)
    engine = reloading_identity(*authority.write(folder, "engine"), ca)
    front = reloading_identity(*authority.write(folder, "front"), ca)
    return LinkTls.of_engine(engine), LinkTls.of_front(front)


async def load(front: RemoteEngine, *levels: int, **options: object) -> LoadedReference:
    async def images() -> AsyncIterator[NamedImage]:
        for level in levels:
            yield NamedImage(gray_png(level) if level >= 0 else b"no image", f"{level}.png")

    return await front.loads.load(LoadOptions(BELT, **options), images(), len(levels))  # type: ignore[arg-type]


async def score(front: RemoteEngine, level: int, client: str = "a") -> float:
    async with front.references.use(BELT) as reference:
        return (await front.scoring.score(reference, gray_input(level), FlowKey(client))).raw.image_score


async def test_a_load_through_one_front_is_known_by_all_when_it_is_answered(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    requested = RequestedOptions(profile=ScoringProfile.PAPER, false_alarm_rate=0.1)
    loaded = await load(one, 10, 20, requested=requested, sensitivity=1.5)
    assert (
        await one.references.info(BELT)
        == await other.references.info(BELT)
        == loaded.info
        == await bench.catalog.info(BELT)
    )
    assert loaded.info.images[0].name == "10.png"
    assert await other.references.page("", 10) == ([loaded.info], False)
    later = await bench.front(0)
    assert later.references.find(BELT) == loaded.info


async def test_scores_are_those_of_the_engine_with_shared_memory_and_without(bench: EngineBench) -> None:
    near, far = await bench.front(0), await bench.front(1, shares_memory=False)
    await load(near, 100)
    async with bench.catalog.use(BELT) as opened:
        model_input = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
        (expected,), _ = opened.scorer.score(model_input[None])
    for front in (near, far):
        async with front.references.use(BELT) as reference:
            scored = await front.scoring.score(reference, model_input, FlowKey("a"))
        assert scored.raw.image_score == expected.image_score
        np.testing.assert_array_equal(scored.raw.anomaly_map, expected.anomaly_map)
        assert scored.times.embed_ms > 0


async def test_files_are_scored_as_by_the_engine_with_shared_memory_and_without(bench: EngineBench) -> None:
    near, far = await bench.front(0), await bench.front(1, shares_memory=False)
    await load(near, 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = device_file(SentImage(encoded(card(), exif=exif)), ImageLimits())
    assert file is not None
    async with bench.catalog.use(BELT) as opened:
        expected = await bench.engine.batcher.score(opened.scorer, file, FlowKey("a"))
    for front in (near, far):
        async with front.references.use(BELT) as reference:
            scored = await front.scoring.score(reference, file, FlowKey("a"))
        assert scored.raw.image_score == expected.raw.image_score
        np.testing.assert_array_equal(scored.raw.anomaly_map, expected.raw.anomaly_map)
        assert scored.times == expected.times
        assert scored.times.decode_ms > 0


async def test_files_and_model_inputs_at_once_are_not_mixed_up(bench: EngineBench) -> None:
    front = await bench.front()
    await load(front, 0)
    async with front.references.use(BELT) as reference:
        images = [gray_file(level) if level % 2 else gray_input(level) for level in range(1, 150)]
        calls = (front.scoring.score(reference, image, FlowKey("a")) for image in images)
        scores = [scored.raw.image_score for scored in await asyncio.gather(*calls)]
    assert scores == list(range(1, 150))


async def test_a_file_that_is_larger_than_a_slot_goes_through_the_connection(bench: EngineBench) -> None:
    front = await bench.front()
    await load(front, 0)
    file = device_file(SentImage(encoded(noise(900), quality=100, subsampling=0)), ImageLimits())
    assert file is not None
    assert file.nbytes > SLOT_BYTES
    async with front.references.use(BELT) as reference:
        assert (await front.scoring.score(reference, file, FlowKey("a"))).raw.image_score > 100


async def test_what_the_device_cannot_do_is_no_failure_of_the_engine(
    bench: EngineBench, caplog: pytest.LogCaptureFixture
) -> None:
    front = await bench.front()
    await load(front, 0)
    bench.detector.is_unknown = lambda _: True
    async with front.references.use(BELT) as reference:
        for _ in range(2 * SLOTS):
            with pytest.raises(DeviceCodecError, match="made up"):
                await front.scoring.score(reference, gray_file(1), FlowKey("a"))
    with pytest.raises(DeviceCodecError, match="made up"):
        await front.drawing.draw(overlay_drawing(), FlowKey("a"))
    assert not caplog.records
    bench.detector.is_unknown = lambda _: False
    assert await score(front, 7) == 7, "every slot is given back"


def overlay_drawing(outlines: Sequence[Sequence[tuple[int, int]]] = ()) -> OverlayDrawing:
    levels = np.random.default_rng(1).integers(0, 256, (5, 7), np.uint8)
    return OverlayDrawing(gray_file(50, (31, 17)), levels, HeatmapScale.CALIBRATED, (310, 170), outlines)


@pytest.mark.parametrize(
    "outlines",
    [
        (),
        (((1, 2), (3, 4), (5, 60_000)), ((7, 8),)),
        tuple(tuple((x, y) for x in range(120)) for y in range(1000)),
    ],
    ids=["none", "two", "more than a head has room for"],
)
async def test_a_drawing_arrives_as_it_was_sent(
    bench: EngineBench, outlines: Sequence[Sequence[tuple[int, int]]]
) -> None:
    sent = overlay_drawing(outlines)
    assert await (await bench.front()).drawing.draw(sent, FlowKey("a")) == sent.file.data
    (arrived,) = bench.detector.drawings
    np.testing.assert_array_equal(arrived.heat_levels, sent.heat_levels)
    assert (arrived.file.data, arrived.file.size_px) == (sent.file.data, sent.file.size_px)
    assert (arrived.scale, arrived.size_px, arrived.outlines) == (sent.scale, sent.size_px, outlines)


async def test_a_front_whose_engine_is_lost_draws_nothing(bench: EngineBench) -> None:
    front = await bench.front()
    bench.detector.drawing_gate.clear()
    drawing = asyncio.create_task(front.drawing.draw(overlay_drawing(), FlowKey("a")))
    await until(lambda: bool(bench.detector.drawing_batches))
    front.close()
    with pytest.raises(EngineLostError):
        await drawing
    with pytest.raises(EngineLostError):
        await front.drawing.draw(overlay_drawing(), FlowKey("a"))
    bench.detector.drawing_gate.set()


async def test_an_overlay_is_not_drawn_for_a_front_that_has_gone(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    bench.detector.drawing_gate.clear()
    running = asyncio.create_task(other.drawing.draw(overlay_drawing(), FlowKey("b")))
    await until(lambda: bool(bench.detector.drawing_batches))
    waiting = [asyncio.create_task(one.drawing.draw(overlay_drawing(), FlowKey("a"))) for _ in range(3)]
    waiting[0].cancel()
    await until(lambda: bench.drawing.waiting == 2)
    one.close()
    await until(lambda: not bench.drawing.waiting)
    bench.detector.drawing_gate.set()
    await running
    await asyncio.gather(*waiting, return_exceptions=True)
    assert bench.detector.drawing_batches == [1]


async def test_many_images_at_once_are_not_mixed_up(bench: EngineBench) -> None:
    front = await bench.front()
    await load(front, 0)
    levels = [*range(1, 200)]  # more than there are slots
    assert len(levels) > SLOTS
    assert await asyncio.gather(*(score(front, level) for level in levels)) == levels


async def test_what_is_larger_than_a_slot_goes_through_the_connection(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await bench.front()
    await load(front, 0)
    assert SLOT_BYTES > 16 * 16 * 3
    monkeypatch.setattr("patchserve_server.fronts.pixels.SLOT_BYTES", 10)
    assert await score(front, 7) == 7


async def test_a_revision_stays_open_while_a_front_uses_it(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    first = (await load(one, 100)).info
    heard: list[object] = []
    async with one.references.use(BELT, first.revision) as reference:
        with one.references.listen(BELT, heard.append):
            second = (await load(other, 120)).info
        assert heard == [second]
        scored = await one.scoring.score(reference, gray_input(100), FlowKey("a", 1))
        assert (reference.info, scored.raw.image_score) == (first, 0)
        assert await score(one, 120) == 0
        with pytest.raises(RevisionMismatchError):
            async with one.references.use(BELT, first.revision):
                pass


async def test_users_of_one_revision_share_a_pin_and_the_last_one_gives_it_back(bench: EngineBench) -> None:
    front = await bench.front()
    await load(front, 1)
    async with front.references.use(BELT) as one, front.references.use(BELT) as other:
        assert one is other
    await settle()
    async with front.references.use(BELT) as later:
        assert later is not one
    await front.references.delete(BELT)
    await until(lambda: not list(bench.catalog.open_ids()))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda front: front.references.tune(DEFAULT_REFERENCE_ID, 1.0), ReferenceNotFoundError),
        (lambda front: front.references.tune(BELT, -1.0), InvalidInputError),
        (lambda front: front.references.restore(BELT), RevisionNotKeptError),
        (load, InvalidInputError),
        (lambda front: load(front, 1, -1), UndecodableImageError),
        (lambda front: load(front, 1, append=True, sensitivity=3.0), PreconditionError),
    ],
)
async def test_errors_come_back_as_the_engine_raised_them(
    bench: EngineBench, call: Callable[[RemoteEngine], object], expected: type[PatchserveError]
) -> None:
    front = await bench.front()
    await load(front, 1)
    with pytest.raises(expected) as caught:
        await call(front)  # type: ignore[misc]
    assert caught.value.message
    if expected is UndecodableImageError:
        assert caught.value.field == "images[1]"  # type: ignore[attr-defined]
    if expected is ReferenceNotFoundError:
        assert caught.value.reference_id == "default"  # type: ignore[attr-defined]


async def test_changes_are_those_of_the_catalog(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    first = (await load(one, 1)).info
    tuned = await other.references.tune(BELT, 2.0, first.revision)
    assert (await one.references.info(BELT)).sensitivity == tuned.sensitivity == 2.0
    restored = await one.references.restore(BELT)
    assert restored.revision == (await other.references.info(BELT)).revision == first.revision
    assert await other.references.delete(BELT) == first.revision
    assert one.references.find(BELT) is None


async def test_a_reference_image_is_that_of_the_engine(bench: EngineBench) -> None:
    front = await bench.front()
    info = (await load(front, 1, 2)).info
    admission = Admission("image", Capacity(2, 2**20), share=1, largest=Capacity(1, 2**20))
    with admission.permit("a") as permit:
        image = await front.reference_images.read(permit, BELT, 1)
        assert permit.capacity == Capacity(1, 3 * 16 * 16)
    assert (image.png[:4], image.name, image.revision) == (b"\x89PNG", "2.png", info.revision)


async def test_active_loads_are_listed_on_every_front(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    bench.detector.fit_gate.clear()
    loading = asyncio.create_task(load(one, 1, 2))
    await until(lambda: bool(bench.engine.builder.active_loads()))
    (active,) = await other.loads.list_loads()
    assert (active.reference_id, active.steps_total) == (BELT, 2)
    bench.detector.fit_gate.set()
    await loading
    assert await other.loads.list_loads(BELT) == []


async def test_when_a_front_has_gone_nothing_is_held_for_it(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    await load(one, 1)
    async with one.references.use(BELT) as reference:
        bench.detector.gate.clear()
        scoring = asyncio.create_task(one.scoring.score(reference, gray_input(1), FlowKey("a")))
        bench.detector.fit_gate.clear()
        loading = asyncio.create_task(load(one, 5))
        await until(lambda: bool(bench.detector.batches and bench.engine.builder.active_loads()))
        one.close()
        for task in (scoring, loading):
            with pytest.raises(EngineLostError):
                await task
        await one.lost.wait()
        with pytest.raises(EngineLostError):
            await one.scoring.score(reference, gray_input(1), FlowKey("a"))
    bench.detector.gate.set()
    bench.detector.fit_gate.set()
    await until(lambda: not bench.engine.builder.active_loads())
    await other.references.delete(BELT)  # nobody waits for the front that has gone
    await until(lambda: not list(bench.catalog.open_ids()))


async def test_a_caller_who_leaves_frees_its_slot_only_when_the_engine_is_done(bench: EngineBench) -> None:
    front = await bench.front()
    await load(front, 0)
    bench.detector.gate.clear()
    async with front.references.use(BELT) as reference:
        for _ in range(3 * SLOTS):
            task = asyncio.create_task(front.scoring.score(reference, gray_input(9), FlowKey("a")))
            await settle()
            task.cancel()
        bench.detector.gate.set()
        assert await asyncio.gather(*(score(front, level) for level in range(50))) == list(range(50))


async def test_clients_of_different_fronts_take_turns(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    await load(one, 0)
    bench.detector.gate.clear()
    done: list[str] = []

    async def ask(front: RemoteEngine, client: str) -> None:
        await score(front, 1, client)
        done.append(client)

    greedy = [asyncio.create_task(ask(one, "greedy")) for _ in range(16)]
    await until(lambda: bool(bench.detector.batches))
    await settle()
    modest = asyncio.create_task(ask(other, "modest"))
    for _ in range(20):
        await asyncio.sleep(0.005)  # the request is on its way through a socket
    bench.detector.gate.set()
    await asyncio.gather(modest, *greedy)
    assert done.index("modest") < 9, "the batch that runs, and the next one"


async def test_another_version_is_refused(bench: EngineBench) -> None:
    with pytest.raises(PatchserveError, match="The engine is patchserve 1, and this front is 2: they need the same"):
        await bench.front(version="2")


async def test_whoever_does_not_say_what_it_is_gets_nothing(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(await bench.front(), 1)
    monkeypatch.setattr("patchserve_server.fronts.session._HELLO_S", 0.05)
    silent = RemoteEngine(None, NOBODY, Peers())
    await connect(silent.link.connection, bench.address, bench.client_tls)
    async with asyncio.timeout(10):
        await silent.lost.wait()
    delete = {"do": "delete", "id": BELT, "expected": None}
    for request, body in ((delete, b""), ({"do": "hello"}, b"long"), ({}, b"")):
        rude = RemoteEngine(None, NOBODY, Peers())
        await connect(rude.link.connection, bench.address, bench.client_tls)
        with pytest.raises(EngineLostError):
            await rude.link.ask(request, body)
    assert bench.catalog.find(BELT) is not None


async def test_an_engine_elsewhere_needs_a_front_whose_certificate_it_knows(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with engine_bench("localhost:0") as bench:
        bench.server_tls, bench.client_tls = tls_of_both(Authority(), tmp_path)
        await bench.listen()
        known = bench.client_tls
        strangers = tls_of_both(Authority(), tmp_path / "other")[1]
        nobody = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        for bench.client_tls in (strangers, nobody, None):
            with pytest.raises((OSError, EngineLostError)):
                await bench.front()
        bench.client_tls = known
        assert await bench.front()


async def test_new_links_begin_with_the_certificates_as_they_are_now(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes((old := Authority()).certificate)
    identities = [reloading_identity(*old.write(tmp_path, name), ca) for name in ("engine", "front")]
    async with engine_bench("localhost:0") as bench:
        bench.server_tls, bench.client_tls = LinkTls.of_engine(identities[0]), LinkTls.of_front(identities[1])
        await bench.listen()
        before = await bench.front()
        ca.write_bytes((new := Authority()).certificate)
        new.write(tmp_path, "engine")
        assert identities[0].reload()
        with pytest.raises((OSError, EngineLostError)):
            await bench.front()
        new.write(tmp_path, "front")
        assert identities[1].reload()
        after = await bench.front()
        await load(after, 100)
        assert await score(before, 103) == 3, "a link keeps what it began with"


async def test_another_end_that_is_silent_is_left(bench: EngineBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "WATCH_S", 0.02)
    one, other = await bench.front(0), await bench.front(1)
    for _ in range(10):  # while it answers, it stays
        await asyncio.sleep(0.02)
        assert not one.lost.is_set()
    monkeypatch.setattr(one.link.connection, "send", lambda *_: None)  # it hangs
    async with asyncio.timeout(10):
        await one.lost.wait()
    assert not other.lost.is_set()


async def _all(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def _one(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


async def test_references_are_exported_through_one_front_and_imported_through_another(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    loaded = (await load(one, 10, 20)).info
    async with one.transfer.export(BELT, loaded.revision) as export:
        assert export.info == loaded
        data = await _all(export.chunks)
    assert len(data) == export.size_bytes
    copied = await other.transfer.import_reference(ImportOptions(len(data), ReferenceId("copy")), _one(data))
    assert (copied.revision, copied.images) == (loaded.revision, loaded.images)
    assert await one.references.info(ReferenceId("copy")) == copied  # known by all when it is answered
    history = await one.references.history(BELT)
    assert history == [loaded]
    assert history[0].operation is ReferenceOperation.LOAD


async def test_a_bad_file_through_a_front_ends_with_the_error_of_the_engine(bench: EngineBench) -> None:
    front = await bench.front()
    with pytest.raises(ReferenceFileError, match="does not begin as one"):
        await front.transfer.import_reference(ImportOptions(5000), _one(b"x" * 5000))
    with pytest.raises(ReferenceNotFoundError):
        async with front.transfer.export(BELT, None):
            pass


async def test_an_export_that_its_front_does_not_finish_is_released(
    bench: EngineBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.engine.transfer, "_files", ExportedFiles(tmp_path / "files"))
    (tmp_path / "files").mkdir()
    front = await bench.front()
    await load(front, 10)
    async with front.transfer.export(BELT, None):
        assert list((tmp_path / "files").iterdir())
    await until(lambda: not list((tmp_path / "files").iterdir()))
    leaving = await bench.front(1)
    async with leaving.transfer.export(BELT, None):
        leaving.close()
        await until(lambda: not list((tmp_path / "files").iterdir()))


async def test_the_scores_of_all_fronts_are_compared_together_and_all_know_the_outcome(bench: EngineBench) -> None:
    one, other = await bench.front(0), await bench.front(1)
    loaded = (await load(one, 10, 20, 30)).info
    calibrated = dataclasses.replace(
        loaded.calibration, method=CalibrationMethod.LEAVE_ONE_OUT, normal_scores=ScoreSpread.of([10, 11, 12, 13])
    )
    bench.fronts.known.set(BELT, dataclasses.replace(loaded, calibration=calibrated))
    for front in (one, other):
        for _ in range(16):
            front.drift.add(BELT, loaded.revision, 40.0)
    for front in (one, other):
        await until(lambda front=front: front.drift.drift_of(loaded).state is DriftState.SCENE_CHANGED)  # type: ignore[misc]
    known = one.drift.drift_of(loaded)
    assert known == other.drift.drift_of(loaded) == bench.engine.drift.drift_of(loaded)
    assert known.image_count == 32
    assert [(reading.labels, reading.value) for reading in bench.engine.drift.readings()] == [(("belt",), 1.0)]
    later = await bench.front(0)
    assert later.drift.drift_of(loaded) == known
    assert later.drift.drift_of(dataclasses.replace(loaded, revision=Revision("0" * 64))) == UNKNOWN
