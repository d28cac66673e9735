"""Streams of both clients: reading while writing, ends of every kind, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from fakes.fake_server import FakeServer, Fault, dropped, not_found, png, serving
from fakes.waiting import until

from patchserve.v1 import stream_pb2
from patchserve_client import (
    AsyncClient,
    Cancelled,
    Client,
    Frame,
    FrameResult,
    InvalidArgument,
    NotFound,
    NoticeKind,
    ResourceExhausted,
    StreamNotice,
)

Inspect: TypeAlias = Callable[..., list[FrameResult]]
DELETED = not_found("belt")


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


async def no_task_left() -> None:
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


def inspect_sync(address: str, frames: Iterable[Any], *, stop_after: int | None = None, **options: Any) -> Any:
    with Client(address) as client, contextlib.closing(client.infer_stream(frames, **options)) as results:
        return list(itertools.islice(results, stop_after))


def inspect_asyncio(address: str, frames: Iterable[Any], *, stop_after: int | None = None, **options: Any) -> Any:
    async def given() -> AsyncIterator[Any]:
        for frame in frames:
            yield frame
            await asyncio.sleep(0)

    async def main() -> list[FrameResult]:
        results: list[FrameResult] = []
        async with AsyncClient(address) as client:
            async with contextlib.aclosing(client.infer_stream(given(), **options)) as stream:
                async for result in stream:
                    results.append(result)
                    if len(results) == stop_after:
                        break
            await no_task_left()
        return results

    return asyncio.run(main())


@pytest.fixture(params=[inspect_sync, inspect_asyncio], ids=["sync", "asyncio"])
def inspect(request: pytest.FixtureRequest) -> Inspect:
    """Streams frames through a fresh client of either kind; `stop_after` leaves the loop early."""
    chosen: Inspect = request.param
    return chosen


class Endless:
    """Frames without end; knows which thread draws them."""

    def __init__(self) -> None:
        self.drawn_by = threading.current_thread()

    def __iter__(self) -> Iterator[bytes]:
        self.drawn_by = threading.current_thread()
        while True:
            yield png()

    def thread_ends(self) -> bool:
        if self.drawn_by is threading.current_thread():  # asyncio: there is no other
            return True
        self.drawn_by.join(10)
        return not self.drawn_by.is_alive()


def test_every_frame_has_its_result_and_a_bad_one_an_error(fake: FakeServer, inspect: Inspect, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    taken = datetime(2025, 1, 1, tzinfo=UTC)
    fake.frame_faults[3] = dropped()
    frames = [Frame(png(), "first", taken), b"no image", tmp_path / "red.png", png()]
    first, bad, red, late = inspect(fake.address, frames, overlay=True, max_regions=2)
    assert (first.frame_id, first.sequence, first.capture_time, first.error) == ("first", 0, taken, None)
    assert first.result is not None
    assert first.result.encoded_overlay is not None
    assert isinstance(bad.error, InvalidArgument)
    assert (bad.result, bad.capture_time, bad.error.reason) == (None, None, "UNDECODABLE_IMAGE")
    assert red.result is not None
    assert red.result.anomaly.is_anomalous
    assert isinstance(late.error, ResourceExhausted)
    assert late.error.reason == "FRAME_DROPPED"


def test_the_options_arrive_in_the_config(fake: FakeServer, inspect: Inspect) -> None:
    options = {"max_in_flight": 3, "overflow": "drop_oldest", "ordering": "completion", "frame_timeout_s": 0.5}
    assert inspect(fake.address, [], reference_id="belt", expected_revision="abc", **options) == []
    (config,) = fake.requests["InferStream"]
    assert (config.reference_id, config.expected_revision, config.max_in_flight) == ("belt", "abc", 3)
    assert config.overflow == stream_pb2.OVERFLOW_POLICY_DROP_OLDEST
    assert config.ordering == stream_pb2.RESULT_ORDERING_COMPLETION
    assert config.frame_timeout.ToMilliseconds() == 500


def test_bad_options_are_refused_before_anything_is_sent(fake: FakeServer) -> None:
    with Client(fake.address) as client, pytest.raises(ValueError, match="max_in_flight"):
        client.infer_stream([], max_in_flight=0)
    assert not fake.requests


def test_notices_go_to_the_callback(fake: FakeServer, inspect: Inspect) -> None:
    fake.notices = [stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_DRAINING, message="Going down.")]
    notices: list[StreamNotice] = []
    assert len(inspect(fake.address, [png()], on_notice=notices.append)) == 1
    assert notices == [StreamNotice(NoticeKind.DRAINING, "Going down.")]
    assert len(inspect(fake.address, [png()])) == 1


def test_results_come_while_frames_are_still_to_be_taken(fake: FakeServer) -> None:
    """Each frame is taken only after the result of the one before: nothing moves unless both ways are open."""
    results: queue.Queue[FrameResult] = queue.Queue()

    def frames() -> Iterator[bytes]:
        for _ in range(5):
            yield png()
            results.get(timeout=10)

    with Client(fake.address) as client:
        for result in client.infer_stream(frames()):
            results.put(result)
    assert len(fake.requests["frame"]) == 5


async def test_results_come_while_frames_are_still_to_be_awaited(fake: FakeServer) -> None:
    results: asyncio.Queue[FrameResult] = asyncio.Queue()

    async def frames() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield png()
            await asyncio.wait_for(results.get(), 10)

    async with AsyncClient(fake.address) as client:
        async for result in client.infer_stream(frames()):
            results.put_nowait(result)
    assert len(fake.requests["frame"]) == 5


class Camera:
    """Frames without end, each of 1 MiB; tells how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.taken < 2000:
            self.taken += 1
            yield png() + bytes(2**20)  # decoders leave the rest unread

    def settled(self) -> int:
        """How many were taken once no more are for a while."""
        seen = -1
        while seen != self.taken:
            seen = self.taken
            time.sleep(0.5)
        return seen


def test_a_server_that_does_not_read_holds_the_frames_back(fake: FakeServer, inspect: Inspect) -> None:
    fake.read_frames.clear()
    camera = Camera()
    running = threading.Thread(target=inspect, args=(fake.address, camera), kwargs={"stop_after": 3})
    running.start()
    fake.wait_for_request("InferStream")
    assert 1 <= camera.settled() < 64
    fake.read_frames.set()
    running.join(30)
    assert not running.is_alive()


def test_a_reader_that_does_not_read_holds_the_frames_back(fake: FakeServer) -> None:
    camera = Camera()
    fake.overlay = bytes(2**20)
    with Client(fake.address) as client, contextlib.closing(client.infer_stream(camera, overlay=True)) as results:
        next(results)
        assert camera.settled() < 500


def test_leaving_early_cancels_the_call_and_ends_the_sender(fake: FakeServer, inspect: Inspect) -> None:
    frames = Endless()
    assert len(inspect(fake.address, frames, stop_after=3)) == 3
    assert fake.stream_ended.wait(10)
    assert frames.thread_ends()


def test_break_without_closing_ends_it_too(fake: FakeServer) -> None:
    frames = Endless()
    with Client(fake.address) as client:
        for _ in client.infer_stream(frames):
            assert frames.drawn_by is not threading.current_thread()
            break
        assert fake.stream_ended.wait(10)
        assert frames.thread_ends()


def test_an_error_in_the_loop_ends_it_too(fake: FakeServer) -> None:
    frames = Endless()

    def look() -> None:
        for _ in client.infer_stream(frames):
            raise LookupError("mine")

    with Client(fake.address) as client:
        with pytest.raises(LookupError, match="mine"):
            look()
        assert fake.stream_ended.wait(10)
        assert frames.thread_ends()


def test_an_error_in_the_callback_ends_it_while_the_error_is_held(fake: FakeServer) -> None:
    def refuse(notice: StreamNotice) -> None:
        raise LookupError(notice.message)

    fake.notices = [stream_pb2.StreamNotice(message="mine")]
    frames = Endless()
    with Client(fake.address) as client:
        results = client.infer_stream(frames, on_notice=refuse)
        with pytest.raises(LookupError, match="mine") as held:
            next(results)
        assert held.traceback  # keeps every variable alive, the call among them
        assert fake.stream_ended.wait(10)
        assert frames.thread_ends()


async def test_cancelling_the_reader_cancels_the_call_and_leaves_no_task(fake: FakeServer) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield png()

    received = asyncio.Event()

    async def read() -> None:
        async for _ in client.infer_stream(endless()):
            received.set()

    async with AsyncClient(fake.address) as client:
        reader = asyncio.create_task(read())
        await received.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert await asyncio.to_thread(fake.stream_ended.wait, 10)
        await no_task_left()


async def test_break_in_a_task_leaves_no_task(fake: FakeServer) -> None:
    async def waiting() -> AsyncIterator[bytes]:
        yield png()
        await asyncio.Event().wait()

    async with AsyncClient(fake.address) as client:
        async for _ in client.infer_stream(waiting()):
            break
        assert await asyncio.to_thread(fake.stream_ended.wait, 10)
        await no_task_left()


def test_what_the_frames_raise_comes_after_the_results_before_it(
    fake: FakeServer, inspect: Inspect, caplog: pytest.LogCaptureFixture
) -> None:
    def frames() -> Iterator[bytes]:
        yield png()
        yield png()
        raise LookupError("the camera was unplugged")

    seen: list[StreamNotice] = []
    fake.notices = [stream_pb2.StreamNotice(message="x")]
    with pytest.raises(LookupError, match="unplugged"):
        inspect(fake.address, frames(), on_notice=seen.append)
    assert len(fake.requests["frame"]) == 2
    assert seen
    assert not [record for record in caplog.records if record.name.startswith("grpc")]  # it would tell of the error


def test_a_frame_that_cannot_be_read_is_the_callers_error(fake: FakeServer, inspect: Inspect) -> None:
    with pytest.raises(FileNotFoundError):
        inspect(fake.address, [png(), Path("nowhere.png")])
    with pytest.raises(TypeError, match="not int"):
        inspect(fake.address, [png(), 42])


def test_the_servers_own_words_end_the_stream(fake: FakeServer, inspect: Inspect) -> None:
    """While frames are still being written, whatever comes first."""
    fake.stream_end = (3, DELETED)
    for _ in range(10):
        with pytest.raises(NotFound) as caught:
            inspect(fake.address, itertools.repeat(png()))
        assert caught.value.reason == "REFERENCE_NOT_FOUND"


def test_a_refused_stream_says_why(fake: FakeServer, inspect: Inspect) -> None:
    refusal = Fault(grpc.StatusCode.INVALID_ARGUMENT, "Too many.", "INVALID_FIELD")
    fake.fail("InferStream", refusal)
    with pytest.raises(InvalidArgument, match="Too many"):
        inspect(fake.address, [png()])


def test_closing_the_client_ends_a_stream(fake: FakeServer) -> None:
    client = Client(fake.address)
    results = client.infer_stream(itertools.repeat(png()))
    next(results)
    client.close()
    with pytest.raises(Cancelled):
        list(results)


async def test_closing_the_asyncio_client_ends_a_stream(fake: FakeServer) -> None:
    received = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield png()

    async def read() -> None:
        async for _ in client.infer_stream(endless()):
            received.set()

    client = AsyncClient(fake.address)
    reader = asyncio.create_task(read())
    await received.wait()
    await client.close()
    with pytest.raises(Cancelled):
        await reader
