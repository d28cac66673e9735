"""Streams of both clients: results while frames are sent, back-pressure, and errors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np
import pytest
from fakes.either_client import StreamFrames, wait_for_other_tasks
from fakes.fake_server import FakeServer
from fakes.faults import Fault, dropped, not_found
from fakes.responses import png

from patchserve.v1 import stream_pb2
from patchserve_client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    Frame,
    FrameResult,
    InvalidArgument,
    NotFound,
    NoticeKind,
    ResourceExhausted,
    StreamNotice,
)

DELETED = not_found("belt")


class EndlessFrames:
    """Frames without end. Remembers the thread that draws them."""

    def __init__(self) -> None:
        self.drawn_by = threading.current_thread()

    def __iter__(self) -> Iterator[bytes]:
        self.drawn_by = threading.current_thread()
        while True:
            yield png()

    def thread_ends(self) -> bool:
        if self.drawn_by is threading.current_thread():  # asyncio: there is no other thread
            return True
        self.drawn_by.join(10)
        return not self.drawn_by.is_alive()


def test_every_frame_has_a_result_and_a_bad_frame_has_an_error(
    fake: FakeServer, stream_frames: StreamFrames, tmp_path: Path
) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    taken = datetime(2025, 1, 1, tzinfo=UTC)
    fake.frame_faults[3] = dropped()
    frames = [Frame(png(), "first", taken), b"no image", tmp_path / "red.png", png()]
    first, bad, red, late = stream_frames(fake.address, frames, overlay=True, max_regions=2)
    assert (first.frame_id, first.sequence, first.capture_time, first.error) == ("first", 0, taken, None)
    assert first.result is not None
    assert first.result.encoded_overlay is not None
    assert isinstance(bad.error, InvalidArgument)
    assert (bad.result, bad.capture_time, bad.error.reason) == (None, None, "UNDECODABLE_IMAGE")
    assert red.result is not None
    assert red.result.anomaly.is_anomalous
    assert isinstance(late.error, ResourceExhausted)
    assert late.error.reason == "FRAME_DROPPED"


def test_options_are_sent_in_the_config(fake: FakeServer, stream_frames: StreamFrames) -> None:
    options = {"max_in_flight": 3, "overflow": "drop_oldest", "ordering": "completion", "frame_timeout_s": 0.5}
    assert stream_frames(fake.address, [], reference_id="belt", expected_revision="abc", **options) == []
    (config,) = fake.requests["InferStream"]
    assert (config.reference_id, config.expected_revision, config.max_in_flight) == ("belt", "abc", 3)
    assert config.overflow == stream_pb2.OVERFLOW_POLICY_DROP_OLDEST
    assert config.ordering == stream_pb2.RESULT_ORDERING_COMPLETION
    assert config.frame_timeout.ToMilliseconds() == 500


def test_bad_options_are_rejected_before_anything_is_sent(fake: FakeServer) -> None:
    with Client(fake.address) as client, pytest.raises(ValueError, match="max_in_flight"):
        client.infer_stream([], max_in_flight=0)
    assert not fake.requests


def test_notices_go_to_the_callback(fake: FakeServer, stream_frames: StreamFrames) -> None:
    fake.notices = [stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_DRAINING, message="Going down.")]
    notices: list[StreamNotice] = []
    assert len(stream_frames(fake.address, [png()], on_notice=notices.append)) == 1
    assert notices == [StreamNotice(NoticeKind.DRAINING, "Going down.")]
    assert len(stream_frames(fake.address, [png()])) == 1


def test_results_come_before_the_next_frame_is_drawn(fake: FakeServer) -> None:
    """Each frame waits for the result of the one before: this works only if both directions are open."""
    results: queue.Queue[FrameResult] = queue.Queue()

    def frames() -> Iterator[bytes]:
        for _ in range(5):
            yield png()
            results.get(timeout=10)

    with Client(fake.address) as client:
        for result in client.infer_stream(frames()):
            results.put(result)
    assert len(fake.requests["frame"]) == 5


async def test_results_come_before_the_next_frame_is_awaited(fake: FakeServer) -> None:
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
    """So many frames of 1 MiB each. Tells when all of them are drawn."""

    def __init__(self, frame_count: int) -> None:
        self.all_drawn = threading.Event()
        self._frame_count = frame_count

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._frame_count):
            yield png() + bytes(2**20)  # decoders ignore the rest
        self.all_drawn.set()

    def is_held_back(self) -> bool:
        """Whether some frames are still to be drawn after a time that is enough for all of them."""
        return not self.all_drawn.wait(1)


def test_frames_are_held_back_while_the_server_does_not_read(fake: FakeServer, stream_frames: StreamFrames) -> None:
    fake.read_frames.clear()
    camera = Camera(64)
    with ThreadPoolExecutor() as pool:
        streaming = pool.submit(stream_frames, fake.address, camera)
        fake.wait_for_request("InferStream")
        assert camera.is_held_back()
        fake.read_frames.set()
        assert len(streaming.result(60)) == 64
    assert camera.all_drawn.is_set()


def test_frames_are_held_back_while_the_caller_does_not_read(fake: FakeServer) -> None:
    camera = Camera(500)
    fake.overlay = bytes(2**20)
    with Client(fake.address) as client, contextlib.closing(client.infer_stream(camera, overlay=True)) as results:
        next(results)
        assert camera.is_held_back()


def test_leaving_the_loop_early_cancels_the_call_and_ends_the_sender(
    fake: FakeServer, stream_frames: StreamFrames
) -> None:
    frames = EndlessFrames()
    assert len(stream_frames(fake.address, frames, stop_after=3)) == 3
    assert fake.stream_ended.wait(10)
    assert frames.thread_ends()


def test_break_without_closing_cancels_the_call_too(fake: FakeServer) -> None:
    frames = EndlessFrames()
    with Client(fake.address) as client:
        for _ in client.infer_stream(frames):
            assert frames.drawn_by is not threading.current_thread()
            break
        assert fake.stream_ended.wait(10)
        assert frames.thread_ends()


def test_an_error_in_the_loop_cancels_the_call_too(fake: FakeServer) -> None:
    frames = EndlessFrames()

    def look() -> None:
        for _ in client.infer_stream(frames):
            raise LookupError("mine")

    with Client(fake.address) as client:
        with pytest.raises(LookupError, match="mine"):
            look()
        assert fake.stream_ended.wait(10)
        assert frames.thread_ends()


def test_an_error_in_the_callback_cancels_the_call_while_the_error_is_kept(fake: FakeServer) -> None:
    def refuse(notice: StreamNotice) -> None:
        raise LookupError(notice.message)

    fake.notices = [stream_pb2.StreamNotice(message="mine")]
    frames = EndlessFrames()
    with Client(fake.address) as client:
        results = client.infer_stream(frames, on_notice=refuse)
        with pytest.raises(LookupError, match="mine") as held:
            next(results)
        assert held.traceback  # keeps every variable alive, also the call
        assert fake.stream_ended.wait(10)
        assert frames.thread_ends()


async def test_cancelling_the_task_cancels_the_call_and_leaves_no_task(fake: FakeServer) -> None:
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
        await wait_for_other_tasks()


async def test_break_in_a_task_leaves_no_task(fake: FakeServer) -> None:
    async def waiting() -> AsyncIterator[bytes]:
        yield png()
        await asyncio.Event().wait()

    async with AsyncClient(fake.address) as client:
        async for _ in client.infer_stream(waiting()):
            break
        assert await asyncio.to_thread(fake.stream_ended.wait, 10)
        await wait_for_other_tasks()


def test_an_exception_of_the_frames_is_raised_after_the_results_before_it(
    fake: FakeServer, stream_frames: StreamFrames, caplog: pytest.LogCaptureFixture
) -> None:
    def frames() -> Iterator[bytes]:
        yield png()
        yield png()
        raise LookupError("the camera was unplugged")

    seen: list[StreamNotice] = []
    fake.notices = [stream_pb2.StreamNotice(message="x")]
    with pytest.raises(LookupError, match="unplugged"):
        stream_frames(fake.address, frames(), on_notice=seen.append)
    assert len(fake.requests["frame"]) == 2
    assert seen
    assert not [record for record in caplog.records if record.name.startswith("grpc")]  # gRPC would log the error


def test_a_frame_that_cannot_be_read_raises_in_the_caller(fake: FakeServer, stream_frames: StreamFrames) -> None:
    with pytest.raises(FileNotFoundError):
        stream_frames(fake.address, [png(), Path("nowhere.png")])
    with pytest.raises(TypeError, match="not int"):
        stream_frames(fake.address, [png(), 42])


def test_the_error_of_the_server_ends_the_stream(fake: FakeServer, stream_frames: StreamFrames) -> None:
    """Frames are still being written: the test repeats, since events come in any order."""
    fake.stream_end = (3, DELETED)
    for _ in range(10):
        with pytest.raises(NotFound) as caught:
            stream_frames(fake.address, itertools.repeat(png()))
        assert caught.value.reason == "REFERENCE_NOT_FOUND"


def test_a_rejected_stream_says_why(fake: FakeServer, stream_frames: StreamFrames) -> None:
    refusal = Fault(grpc.StatusCode.INVALID_ARGUMENT, "Too many.", "INVALID_FIELD")
    fake.fail("InferStream", refusal)
    with pytest.raises(InvalidArgument, match="Too many"):
        stream_frames(fake.address, [png()])


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


def test_the_frame_id_of_a_path_is_its_name(fake: FakeServer, stream_frames: StreamFrames, tmp_path: Path) -> None:
    path = tmp_path / "frame 1.png"
    path.write_bytes(png())
    results = stream_frames(fake.address, [path, str(path), Frame(path), Frame(path, "mine"), png()])
    assert [result.frame_id for result in results] == ["frame 1.png"] * 3 + ["mine", ""]


def test_frames_of_opencv_keep_their_colors(fake: FakeServer, stream_frames: StreamFrames) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    (result,) = stream_frames(fake.address, [Frame(red)], bgr=True)
    assert result.result is not None
    assert result.result.anomaly.is_anomalous


def test_a_server_that_answers_nothing_ends_the_stream(fake: FakeServer, stream_frames: StreamFrames) -> None:
    fake.read_frames.clear()
    with pytest.raises(DeadlineExceeded, match=r"silent for 0.3 s.*`timeout_s`"):
        stream_frames(fake.address, itertools.repeat(png(), 3), timeout_s=0.3)
    fake.read_frames.set()


def test_the_longest_silence_is_positive(fake: FakeServer) -> None:
    with Client(fake.address) as client, pytest.raises(ValueError, match="timeout_s"):
        client.infer_stream([png()], timeout_s=0)
