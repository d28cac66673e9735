"""Streams that connect again: every frame has exactly one result, whenever the connection is lost."""

from __future__ import annotations

import asyncio
import itertools
import queue
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from fakes.either_client import StreamFrames, async_items
from fakes.fake_server import FakeServer
from fakes.faults import Fault, dropped, not_found
from fakes.responses import png
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse, StreamReady
from patchserve_client import (
    Client,
    Frame,
    FrameResult,
    Internal,
    NotFound,
    NoticeKind,
    PatchserveError,
    ResourceExhausted,
    StreamNotice,
    Unauthenticated,
    Unavailable,
)
from patchserve_client._aio_stream import stream as aio_stream
from patchserve_client._backoff import Backoff
from patchserve_client._own_changes import OwnChanges
from patchserve_client._requests import frame_request
from patchserve_client._stream import stream
from patchserve_client._stream_state import StreamState

RETRY_SOON = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
LOST = Fault(grpc.StatusCode.UNAVAILABLE, "Socket closed.")
DRAINING = Fault(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.", "DRAINING", [RETRY_SOON])
RESET = Fault(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")
FULL = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many streams.", "QUEUE_FULL", [RETRY_SOON])
BUG = Fault(grpc.StatusCode.INTERNAL, "A bug.", "INTERNAL")
EXPIRED = Fault(grpc.StatusCode.UNAUTHENTICATED, "The token has expired.", "CREDENTIALS_EXPIRED")
LONG_S = 60.0


def numbered(count: int) -> list[Frame]:
    return [Frame(png(), str(number)) for number in range(count)]


def outcomes(results: Iterable[FrameResult]) -> list[tuple[str, int]]:
    return [(result.frame_id, result.sequence) for result in results]


def one_each(count: int) -> list[tuple[str, int]]:
    return [(str(number), number) for number in range(count)]


@pytest.mark.parametrize("fault", [LOST, DRAINING, RESET, FULL], ids=["lost", "draining", "reset", "full"])
def test_frames_without_a_result_are_sent_again(fake: FakeServer, stream_frames: StreamFrames, fault: Fault) -> None:
    fake.stream_end = (4, fault)
    assert outcomes(stream_frames(fake.address, numbered(14), resume_for_s=LONG_S)) == one_each(14)
    assert len(fake.requests["InferStream"]) == 4
    assert len(fake.requests["frame"]) > 14


def test_a_rejected_connection_is_tried_again(fake: FakeServer, stream_frames: StreamFrames) -> None:
    fake.fail("InferStream", LOST, times=3)
    assert outcomes(stream_frames(fake.address, numbered(2), resume_for_s=LONG_S)) == one_each(2)
    assert len(fake.requests["InferStream"]) == 4


def test_without_resume_for_s_a_lost_connection_ends_the_stream(fake: FakeServer, stream_frames: StreamFrames) -> None:
    fake.stream_end = (2, LOST)
    with pytest.raises(Unavailable):
        stream_frames(fake.address, numbered(4))
    assert len(fake.requests["InferStream"]) == 1


@pytest.mark.parametrize(("fault", "error"), [(not_found("default"), NotFound), (BUG, Internal)])
def test_an_error_that_a_new_connection_cannot_fix_ends_the_stream(
    fake: FakeServer, stream_frames: StreamFrames, fault: Fault, error: type[PatchserveError]
) -> None:
    fake.stream_end = (2, fault)
    with pytest.raises(error):
        stream_frames(fake.address, numbered(4), resume_for_s=LONG_S)
    assert len(fake.requests["InferStream"]) == 1


def test_a_frame_that_breaks_every_connection_is_not_sent_for_ever(
    fake: FakeServer, stream_frames: StreamFrames
) -> None:
    fake.stream_ends.append((2, LOST))
    fake.stream_end = (0, LOST)
    with pytest.raises(Unavailable):
        stream_frames(fake.address, numbered(4), resume_for_s=0.5)


def test_a_frame_with_an_error_is_not_sent_again(fake: FakeServer, stream_frames: StreamFrames) -> None:
    fake.stream_ends.append((3, LOST))
    fake.frame_faults[1] = dropped()
    results = stream_frames(fake.address, numbered(4), resume_for_s=LONG_S)
    assert outcomes(results) == one_each(4)
    assert isinstance(results[1].error, ResourceExhausted)


def test_an_exception_of_the_frames_is_raised_after_the_results_before_it(
    fake: FakeServer, stream_frames: StreamFrames
) -> None:
    def frames() -> Iterator[Frame]:
        yield from numbered(3)
        raise LookupError("the camera was unplugged")

    seen: list[Any] = []
    fake.stream_ends.append((1, LOST))
    with pytest.raises(LookupError, match="unplugged"):
        stream_frames(fake.address, frames(), resume_for_s=LONG_S, on_notice=seen.append)
    assert {frame.frame_id for frame in fake.requests["frame"]} == {"0", "1", "2"}
    assert len(fake.requests["InferStream"]) == 2


def test_a_frame_drawn_for_the_lost_connection_goes_to_the_next_one(fake: FakeServer) -> None:
    """The lost connection waits for a frame that comes only after the results of frames that are sent again."""
    results: queue.Queue[FrameResult] = queue.Queue()

    def frames() -> Iterator[Frame]:
        for frame in numbered(5):
            yield frame
            results.get(timeout=10)

    fake.stream_ends.extend([(0, LOST), (1, LOST)])
    seen = []
    with Client(fake.address) as client:
        for result in client.infer_stream(frames(), resume_for_s=LONG_S):
            seen.append(result)
            results.put(result)
    assert outcomes(seen) == one_each(5)


def test_each_connection_asks_for_the_token_again(fake: FakeServer) -> None:
    tokens = itertools.count()
    fake.stream_ends.extend([(1, EXPIRED), (1, LOST)])
    with Client(fake.address, token=lambda: f"token-{next(tokens)}") as client:
        assert outcomes(client.infer_stream(numbered(3), resume_for_s=LONG_S)) == one_each(3)
    assert [metadata["authorization"] for metadata in fake.metadata] == [
        f"Bearer token-{number}" for number in range(3)
    ]


def test_an_expired_token_is_replaced_only_once(fake: FakeServer, stream_frames: StreamFrames) -> None:
    fake.fail("InferStream", EXPIRED, times=9)
    with pytest.raises(Unauthenticated):
        stream_frames(fake.address, numbered(3), resume_for_s=LONG_S)
    assert len(fake.requests["InferStream"]) == 2


def test_a_bad_time_is_rejected_before_anything_is_sent(fake: FakeServer) -> None:
    with Client(fake.address) as client, pytest.raises(ValueError, match="resume_for_s"):
        client.infer_stream([], resume_for_s=-1)
    assert not fake.requests


@dataclass(frozen=True)
class ScriptedConnection:
    """Receives so many frames, then answers some of them in this order, then is lost."""

    frame_count: int
    answered_sequences: tuple[int, ...]


@st.composite
def scripted_connections(draw: st.DrawFn) -> ScriptedConnection:
    count = draw(st.integers(0, 6))
    answered = draw(st.permutations(range(count)))[: draw(st.integers(0, count))]
    return ScriptedConnection(count, tuple(answered))


def answer(request: InferStreamRequest, sequence: int) -> InferStreamResponse:
    message = InferStreamResponse()
    message.result.frame_id, message.result.sequence = request.frame.frame_id, sequence
    return message


class ScriptedServer:
    """Connections that are lost as scripted. The one after the last of them answers every frame."""

    def __init__(self, script: list[ScriptedConnection], *, then_drains: bool) -> None:
        self._script = iter(script)
        self._then_drains = then_drains

    def connect(self, requests: Iterator[InferStreamRequest]) -> Generator[InferStreamResponse]:
        assert next(requests).HasField("config")
        yield InferStreamResponse(ready=StreamReady())
        scripted = next(self._script, None)
        if scripted is None:
            yield from map(answer, requests, itertools.count())
            if self._then_drains:
                raise Unavailable("It drains.")
            return
        frames = list(itertools.islice(requests, scripted.frame_count))
        for sequence in scripted.answered_sequences:
            if sequence < len(frames):
                yield answer(frames[sequence], sequence)
        raise Unavailable("lost")

    async def aio_connect(self, requests: AsyncGenerator[InferStreamRequest]) -> AsyncGenerator[InferStreamResponse]:
        assert (await anext(requests)).HasField("config")
        yield InferStreamResponse(ready=StreamReady())
        scripted = next(self._script, None)
        frames: list[InferStreamRequest] = []
        while scripted is None or len(frames) < scripted.frame_count:
            if (request := await anext(requests, None)) is None:
                break
            frames.append(request)
        for sequence in range(len(frames)) if scripted is None else scripted.answered_sequences:
            if sequence < len(frames):
                yield answer(frames[sequence], sequence)
        if scripted is not None or self._then_drains:
            raise Unavailable("lost")


CONFIG = InferStreamRequest()
CONFIG.config.SetInParent()


def new_state() -> StreamState:
    return StreamState(CONFIG, Backoff(LONG_S), OwnChanges())


def run_sync(frames: list[Frame], server: ScriptedServer) -> list[FrameResult]:
    return list(stream(new_state(), frames, frame_request, server.connect, None))


def run_asyncio(frames: list[Frame], server: ScriptedServer) -> list[FrameResult]:
    async def main() -> list[FrameResult]:
        results = aio_stream(new_state(), async_items(frames), frame_request, server.aio_connect, None)
        return [result async for result in results]

    return asyncio.run(main())


@pytest.mark.parametrize("run", [run_sync, run_asyncio], ids=["sync", "asyncio"])
@settings(deadline=None)
@given(script=st.lists(scripted_connections(), max_size=6), count=st.integers(0, 12), then_drains=st.booleans())
def test_each_frame_has_one_result_whenever_connections_are_lost(
    run: Callable[[list[Frame], ScriptedServer], list[FrameResult]],
    script: list[ScriptedConnection],
    count: int,
    then_drains: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backoff, "delay_s", lambda _self, _error: 0.0)
        results = run(numbered(count), ScriptedServer(script, then_drains=then_drains))
    assert sorted(outcomes(results), key=lambda one: one[1]) == one_each(count)
    if all(one.answered_sequences == tuple(range(len(one.answered_sequences))) for one in script):
        assert outcomes(results) == one_each(count), "in order if every connection answers in order"


def test_both_clients_tell_that_they_reconnect_and_resume(fake: FakeServer, stream_frames: StreamFrames) -> None:
    notices: list[StreamNotice] = []
    fake.stream_ends.append((2, DRAINING))
    results = stream_frames(fake.address, numbered(5), resume_for_s=LONG_S, on_notice=notices.append)
    assert outcomes(results) == one_each(5)
    assert [notice.kind for notice in notices] == [NoticeKind.RECONNECTING, NoticeKind.RESUMED]
    assert notices[0].message == "The stream lost its server, reconnecting: The server is shutting down."
