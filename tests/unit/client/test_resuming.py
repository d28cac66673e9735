"""Streams over several connections: every frame has exactly one result, whenever the server is lost."""

from __future__ import annotations

import asyncio
import itertools
import queue
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from fakes.fake_server import FakeServer, Fault, dropped, not_found, png, serving
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st
from unit.client.test_stream import Inspect, inspect_asyncio, inspect_sync

from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse, StreamReady
from patchserve_client import (
    Client,
    Frame,
    FrameResult,
    Internal,
    NotFound,
    PatchserveError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from patchserve_client._aio_stream import stream as aio_stream
from patchserve_client._errors import ErrorDetails
from patchserve_client._resuming import Patience
from patchserve_client._stream import stream

SOON = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
LOST = Fault(grpc.StatusCode.UNAVAILABLE, "Socket closed.")
DRAINING = Fault(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.", "DRAINING", [SOON])
RESET = Fault(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")
FULL = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many streams.", "QUEUE_FULL", [SOON])
BUG = Fault(grpc.StatusCode.INTERNAL, "A bug.", "INTERNAL")
EXPIRED = Fault(grpc.StatusCode.UNAUTHENTICATED, "It was good once.", "CREDENTIALS_EXPIRED")
LONG_S = 60.0


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


@pytest.fixture(params=[inspect_sync, inspect_asyncio], ids=["sync", "asyncio"])
def inspect(request: pytest.FixtureRequest) -> Inspect:
    chosen: Inspect = request.param
    return chosen


def numbered(count: int) -> list[Frame]:
    return [Frame(png(), str(number)) for number in range(count)]


def answers(results: Iterable[FrameResult]) -> list[tuple[str, int]]:
    return [(result.frame_id, result.sequence) for result in results]


def once(count: int) -> list[tuple[str, int]]:
    return [(str(number), number) for number in range(count)]


@pytest.mark.parametrize("fault", [LOST, DRAINING, RESET, FULL], ids=["lost", "draining", "reset", "full"])
def test_frames_without_a_result_are_sent_again(fake: FakeServer, inspect: Inspect, fault: Fault) -> None:
    fake.stream_end = (4, fault)
    assert answers(inspect(fake.address, numbered(14), resume_for_s=LONG_S)) == once(14)
    assert len(fake.requests["InferStream"]) == 4
    assert len(fake.requests["frame"]) > 14


def test_a_refused_connection_is_tried_again(fake: FakeServer, inspect: Inspect) -> None:
    fake.fail("InferStream", LOST, times=3)
    assert answers(inspect(fake.address, numbered(2), resume_for_s=LONG_S)) == once(2)
    assert len(fake.requests["InferStream"]) == 4


def test_unless_asked_to_a_stream_does_not_go_on(fake: FakeServer, inspect: Inspect) -> None:
    fake.stream_end = (2, LOST)
    with pytest.raises(Unavailable):
        inspect(fake.address, numbered(4))
    assert len(fake.requests["InferStream"]) == 1


@pytest.mark.parametrize(("fault", "error"), [(not_found("default"), NotFound), (BUG, Internal)])
def test_what_another_connection_would_not_mend_ends_the_stream(
    fake: FakeServer, inspect: Inspect, fault: Fault, error: type[PatchserveError]
) -> None:
    fake.stream_end = (2, fault)
    with pytest.raises(error):
        inspect(fake.address, numbered(4), resume_for_s=LONG_S)
    assert len(fake.requests["InferStream"]) == 1


def test_a_frame_that_every_server_dies_of_does_not_go_round_for_ever(fake: FakeServer, inspect: Inspect) -> None:
    fake.stream_ends.append((2, LOST))
    fake.stream_end = (0, LOST)
    with pytest.raises(Unavailable):
        inspect(fake.address, numbered(4), resume_for_s=0.5)


def test_an_error_is_a_result(fake: FakeServer, inspect: Inspect) -> None:
    fake.stream_ends.append((3, LOST))
    fake.frame_faults[1] = dropped()
    results = inspect(fake.address, numbered(4), resume_for_s=LONG_S)
    assert answers(results) == once(4)
    assert isinstance(results[1].error, ResourceExhausted)


def test_what_the_frames_raise_comes_after_the_results_before_it(fake: FakeServer, inspect: Inspect) -> None:
    def frames() -> Iterator[Frame]:
        yield from numbered(3)
        raise LookupError("the camera was unplugged")

    seen: list[Any] = []
    fake.stream_ends.append((1, LOST))
    with pytest.raises(LookupError, match="unplugged"):
        inspect(fake.address, frames(), resume_for_s=LONG_S, on_notice=seen.append)
    assert {frame.frame_id for frame in fake.requests["frame"]} == {"0", "1", "2"}
    assert len(fake.requests["InferStream"]) == 2


def test_the_last_connections_thread_hands_its_frame_on(fake: FakeServer) -> None:
    """It waits for a frame that comes only after the results of those that the next connection has to send again."""
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
    assert answers(seen) == once(5)


def test_each_connection_has_the_present_token(fake: FakeServer) -> None:
    tokens = itertools.count()
    fake.stream_ends.extend([(1, EXPIRED), (1, LOST)])
    with Client(fake.address, token=lambda: f"token-{next(tokens)}") as client:
        assert answers(client.infer_stream(numbered(3), resume_for_s=LONG_S)) == once(3)
    assert [metadata["authorization"] for metadata in fake.metadata] == [
        f"Bearer token-{number}" for number in range(3)
    ]


def test_an_expired_token_is_asked_for_once_more_only(fake: FakeServer, inspect: Inspect) -> None:
    fake.fail("InferStream", EXPIRED, times=9)
    with pytest.raises(Unauthenticated):
        inspect(fake.address, numbered(3), resume_for_s=LONG_S)
    assert len(fake.requests["InferStream"]) == 2


@pytest.mark.parametrize("resume_for_s", [-1.0, float("nan")])
def test_a_patience_that_is_none_is_refused(fake: FakeServer, resume_for_s: float) -> None:
    with Client(fake.address) as client, pytest.raises(ValueError, match="resume_for_s"):
        client.infer_stream([], resume_for_s=resume_for_s)


def test_waits_grow_and_end_with_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    patience = Patience(10)
    error = Unavailable("gone")
    first_s = patience.delay_s(error)
    waits_s = [patience.delay_s(error) for _ in range(20)]
    assert 0.05 < first_s < 0.2
    assert max(waits_s) <= 2.5
    now_s = 109.9
    assert patience.delay_s(error) <= 0.1 + 1e-9
    now_s = 110.0
    with pytest.raises(Unavailable):
        patience.delay_s(error)
    patience.progress()
    assert patience.delay_s(error) < 0.2
    assert patience.delay_s(Unavailable("soon", ErrorDetails(retry_after_s=4))) >= 3


@dataclass(frozen=True)
class Line:
    """One connection: it takes so many frames, then answers some of them in this order, and is lost."""

    takes: int
    answers: tuple[int, ...]  # sequences


@st.composite
def lines(draw: st.DrawFn) -> Line:
    takes = draw(st.integers(0, 6))
    return Line(takes, tuple(draw(st.permutations(range(takes)))[: draw(st.integers(0, takes))]))


def outcome(request: InferStreamRequest, sequence: int) -> InferStreamResponse:
    message = InferStreamResponse()
    message.result.frame_id, message.result.sequence = request.frame.frame_id, sequence
    return message


class Script:
    """Connections that end as they are told to; the last one answers everything."""

    def __init__(self, script: list[Line], *, then_drains: bool) -> None:
        self._script = iter(script)
        self._then_drains = then_drains

    def connect(self, requests: Iterator[InferStreamRequest]) -> Generator[InferStreamResponse]:
        assert next(requests).HasField("config")
        yield InferStreamResponse(ready=StreamReady())
        line = next(self._script, None)
        if line is None:
            yield from map(outcome, requests, itertools.count())
            if self._then_drains:
                raise Unavailable("It drains.")
            return
        taken = list(itertools.islice(requests, line.takes))
        for sequence in line.answers:
            if sequence < len(taken):
                yield outcome(taken[sequence], sequence)
        raise Unavailable("lost")

    async def aio_connect(self, requests: AsyncGenerator[InferStreamRequest]) -> AsyncGenerator[InferStreamResponse]:
        assert (await anext(requests)).HasField("config")
        yield InferStreamResponse(ready=StreamReady())
        line = next(self._script, None)
        taken: list[InferStreamRequest] = []
        while line is None or len(taken) < line.takes:
            if (request := await anext(requests, None)) is None:
                break
            taken.append(request)
        for sequence in range(len(taken)) if line is None else line.answers:
            if sequence < len(taken):
                yield outcome(taken[sequence], sequence)
        if line is not None or self._then_drains:
            raise Unavailable("lost")


CONFIG = InferStreamRequest()
CONFIG.config.SetInParent()


def run_sync(frames: list[Frame], script: Script) -> list[FrameResult]:
    return list(stream(CONFIG, frames, script.connect, None, Patience(LONG_S)))


def run_asyncio(frames: list[Frame], script: Script) -> list[FrameResult]:
    async def given_frames() -> AsyncIterable[Any]:
        for frame in frames:
            yield frame

    async def main() -> list[FrameResult]:
        results = aio_stream(CONFIG, given_frames(), script.aio_connect, None, Patience(LONG_S))
        return [result async for result in results]

    return asyncio.run(main())


@pytest.mark.parametrize("run", [run_sync, run_asyncio], ids=["sync", "asyncio"])
@given(script=st.lists(lines(), max_size=6), count=st.integers(0, 12), then_drains=st.booleans())
def test_whenever_connections_are_lost_each_frame_has_one_result(
    run: Callable[[list[Frame], Script], list[FrameResult]], script: list[Line], count: int, then_drains: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Patience, "delay_s", lambda _self, _error: 0.0)
        results = run(numbered(count), Script(script, then_drains=then_drains))
    assert sorted(answers(results), key=lambda one: one[1]) == once(count)
    if all(line.answers == tuple(range(len(line.answers))) for line in script):
        assert answers(results) == once(count), "in order where every connection answers in order"
