"""InferStream over gRPC and over a WebSocket: one result for each accepted frame; few errors close the stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from e2e.harness import CARDS, ServerProcess, Stub, connect, load, refusal
from e2e.in_process import running_server
from e2e.socket_stub import SocketStub
from e2e.streaming import Feed, Request, config, frame, results
from fakes.images import card, encoded, noise

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve.v1.reference_pb2 import Reference


@pytest.fixture(params=["gRPC", "WebSocket"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stub(server: ServerProcess, transport: str) -> Iterator[Any]:
    with connect(server.address) as connected:
        yield connected if transport == "gRPC" else SocketStub(connected, server.http_url)


@contextmanager
def stub_of_server(transport: str, **settings: Any) -> Iterator[Any]:
    """A stub of a server of its own."""
    with running_server(**settings) as server, connect(server.address) as connected:
        yield connected if transport == "gRPC" else SocketStub(connected, server.http_url)


def test_corrupt_frames_are_errors_and_memory_stays_flat(stub: Stub, cards: Reference, server: ServerProcess) -> None:
    good, corrupt = encoded(card(9)), encoded(card(9))[:1500]
    bad = set(range(7, 200, 20))
    requests = [frame(number, corrupt if number in bad else good) for number in range(200)]

    def run() -> list[stream_pb2.InferStreamResponse]:
        return list(stub.InferStream(iter([config(CARDS), *requests]), timeout=120))

    responses = run()
    rss_before, files_before = server.rss_bytes(), server.open_files()
    ready, *rest = responses
    assert ready.ready.reference_revision == cards.revision
    assert ready.ready.max_in_flight == 8
    got = results(rest)
    assert [result.frame_id for result in got] == [f"f{number}" for number in range(200)]
    assert [result.sequence for result in got] == list(range(200))
    assert {result.sequence for result in got if result.WhichOneof("outcome") == "error"} == bad
    for number in bad:
        assert got[number].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert got[number].error.details
    assert len(run()) == 201
    assert server.rss_bytes() < rss_before + 64 * 2**20, "memory is flat from one run to the next"
    assert server.open_files() <= files_before


def test_a_result_over_the_message_limit_is_an_error_of_its_frame_and_holds_nothing(transport: str) -> None:
    """More often than the server has capacity for, if each time kept its own."""
    small, large = encoded(card(1)), encoded(noise(800))  # drawn, the large one is a PNG of 1.9 MB
    output = {"overlay": True, "heatmap_scale": inference_pb2.HEATMAP_SCALE_CALIBRATED}
    with stub_of_server(transport, max_message_mib=1, max_pending_mib=16) as stub:
        load(stub, "limited", 1)
        for _ in range(12):
            requests = [config("limited", output=output), frame(0, small), frame(1, large), frame(2, small)]
            first, second, third = results(stub.InferStream(iter(requests), timeout=60))
            assert (first.WhichOneof("outcome"), third.WhichOneof("outcome")) == ("response", "response")
            assert second.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            assert "Ask for a JPEG overlay or a smaller overlay_max_side_px" in second.error.message
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(inference_pb2.InferRequest(reference_id="limited", image=large, output=output))  # type: ignore[arg-type]
        assert refusal(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "RESPONSE_TOO_LARGE")
        assert stub.Infer(inference_pb2.InferRequest(reference_id="limited", image=large))


def test_the_sender_is_held_back_while_nobody_reads_results(transport: str) -> None:
    noisy = encoded(card(1), "BMP")  # 230 KB, so that buffers on the way fill up soon
    sent, all_sent = 0, threading.Event()

    def requests() -> Iterator[Request]:
        nonlocal sent
        yield config("held", max_in_flight=2, output={"overlay": True})
        for number in range(400):
            sent += 1
            yield frame(number, noisy)
        all_sent.set()

    with stub_of_server(transport) as stub:
        load(stub, "held", 1)
        call = stub.InferStream(requests(), timeout=120)
        assert next(call).HasField("ready")
        assert not all_sent.wait(1)
        assert sent < 300
        assert len(results(call)) == 400, "the rest is sent once results are read"


@pytest.mark.usefixtures("cards")
def test_completion_order_answers_a_broken_frame_first(stub: Stub) -> None:
    ordering = stream_pb2.RESULT_ORDERING_COMPLETION
    requests = [frame(number, encoded(card(1))) for number in range(4)] + [frame(4, b"no image")]
    call = stub.InferStream(iter([config(CARDS, ordering=ordering), *requests]), timeout=60)
    order = [result.sequence for result in results(call)]
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order[-1] != 4


@pytest.mark.usefixtures("cards")
def test_drop_oldest_answers_every_frame(stub: Stub) -> None:
    requests = [frame(number, encoded(card(1))) for number in range(60)]
    settings = config(CARDS, overflow=stream_pb2.OVERFLOW_POLICY_DROP_OLDEST, max_in_flight=2)
    got = results(stub.InferStream(iter([settings, *requests]), timeout=60))
    assert [result.sequence for result in got] == list(range(60))
    dropped = [result for result in got if result.WhichOneof("outcome") == "error"]
    assert dropped
    assert {result.error.code for result in dropped} == {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}
    assert got[0].HasField("response")


@pytest.mark.usefixtures("cards")
def test_a_late_frame_is_an_error_and_the_stream_continues(stub: Stub) -> None:
    settings = config(CARDS, frame_timeout={"nanos": 1000})
    got = results(stub.InferStream(iter([settings, frame(0, encoded(card(1))), frame(1, encoded(card(1)))])))
    assert [result.error.code for result in got] == [grpc.StatusCode.DEADLINE_EXCEEDED.value[0]] * 2


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], "STREAM_PROTOCOL"),
        ([Request()], "STREAM_PROTOCOL"),
        ([frame(0, b"x")], "STREAM_PROTOCOL"),
        ([config(CARDS), config(CARDS)], "STREAM_PROTOCOL"),
        ([config(CARDS), Request()], "STREAM_PROTOCOL"),
        ([config(CARDS, max_in_flight=100_000)], "INVALID_FIELD"),
        ([config("../strict")], "INVALID_FIELD"),
        ([config(CARDS, expected_revision="0" * 64)], "REVISION_MISMATCH"),
        ([config("nobody")], "REFERENCE_NOT_FOUND"),
    ],
)
@pytest.mark.usefixtures("cards")
def test_a_broken_protocol_closes_the_stream(stub: Stub, transport: str, requests: list[Request], reason: str) -> None:
    if transport == "WebSocket" and not (requests and requests[0].HasField("config")):
        pytest.skip("the config is in the URL")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.InferStream(iter(requests), timeout=30))
    assert refusal(caught.value)[1] == reason


@pytest.mark.usefixtures("cards")
def test_frames_before_a_protocol_violation_are_answered(stub: Stub) -> None:
    call = stub.InferStream(iter([config(CARDS), frame(0, encoded(card(1))), config(CARDS)]), timeout=30)
    assert next(call).HasField("ready")
    assert next(call).result.HasField("response")
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert refusal(caught.value)[1] == "STREAM_PROTOCOL"


@pytest.mark.usefixtures("cards")
def test_a_frame_id_that_is_too_long_is_an_error_of_that_frame(stub: Stub) -> None:
    long_id = Request(frame=stream_pb2.Frame(frame_id="x" * 129, image=encoded(card(1))))
    got = results(stub.InferStream(iter([config(CARDS), long_id, frame(1, encoded(card(1)))]), timeout=30))
    assert [result.WhichOneof("outcome") for result in got] == ["error", "response"]


def test_a_stream_keeps_its_revision_and_ends_when_the_reference_is_deleted(stub: Stub) -> None:
    first = load(stub, "pinned", 1)
    feed = Feed(config("pinned"), frame(0, encoded(card(0))))
    call = stub.InferStream(iter(feed), timeout=60)
    assert next(call).ready.reference_revision == first.revision
    assert next(call).result.response.reference_revision == first.revision
    second = load(stub, "pinned", 2)
    notice = next(call).notice
    assert notice.kind == stream_pb2.NOTICE_KIND_REFERENCE_CHANGED
    assert second.revision in notice.message
    feed.send(frame(1, encoded(card(0))))
    assert next(call).result.response.reference_revision == first.revision
    stub.DeleteReference(reference_pb2.DeleteReferenceRequest(reference_id="pinned"))
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert refusal(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")
    feed.close()


def test_a_stream_gets_a_notice_of_a_tune_and_keeps_its_sensitivity(stub: Stub) -> None:
    loaded = load(stub, "tuned-meanwhile", 1)
    feed = Feed(config("tuned-meanwhile"), frame(0, encoded(card(0))))
    call = stub.InferStream(iter(feed), timeout=60)
    assert next(call).ready.reference_revision == loaded.revision
    before = next(call).result.response.anomaly
    request = reference_pb2.TuneReferenceRequest(reference_id="tuned-meanwhile", sensitivity=2)
    tuned = stub.TuneReference(request).reference
    notice = next(call).notice
    assert notice.kind == stream_pb2.NOTICE_KIND_REFERENCE_CHANGED
    assert tuned.revision in notice.message
    feed.send(frame(1, encoded(card(0))))
    assert next(call).result.response.anomaly == before
    feed.close()
    (result,) = results(stub.InferStream(iter([config("tuned-meanwhile"), frame(0, encoded(card(0)))]), timeout=60))
    assert result.response.reference_revision == tuned.revision
    assert result.response.anomaly.raw_threshold == pytest.approx(before.raw_threshold / 2)


@pytest.mark.usefixtures("cards")
def test_abandoned_streams_release_everything(stub: Stub) -> None:
    image = encoded(card(1))

    def abandon() -> None:
        call = stub.InferStream(iter(Feed(config(CARDS), *(frame(n, image) for n in range(20)))), timeout=60)
        next(call)
        call.cancel()

    workers = [threading.Thread(target=abandon) for _ in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    got = results(stub.InferStream(iter([config(CARDS), frame(0, image)]), timeout=30))
    assert got[0].HasField("response")


@pytest.mark.usefixtures("cards")
def test_memory_stays_bounded_while_many_frames_are_offered(stub: Stub, server: ServerProcess) -> None:
    """170 MB in four streams, to a server that inspects about 30 of these frames in a second."""
    image = encoded(noise(600), "BMP")  # 1.1 MB
    requests = [config(CARDS, max_in_flight=4), *(frame(number, image) for number in range(40))]
    before, highest, done = server.rss_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.02):
            highest = max(highest, server.rss_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor() as senders:
        calls = [senders.submit(lambda: results(stub.InferStream(iter(requests), timeout=300))) for _ in range(4)]
    done.set()
    watcher.join()
    assert {len(call.result()) for call in calls} == {40}
    assert highest < before + 160 * 2**20
