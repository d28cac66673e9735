"""Metrics over a real socket: what is counted begins and ends on every path."""

from __future__ import annotations

import asyncio
import base64
import json
import queue
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from e2e.harness import Stub, connect
from e2e.in_process import RunningServer, running_server
from e2e.socket_stub import open_stream
from e2e.streaming import Feed, config, frame
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.scrape import Scrape, scrape
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.v1 import stream_pb2
from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.reference_pb2 import DeleteReferenceRequest, LoadReferenceRequest
from patchserve_server.domain.errors import StartupError
from patchserve_server.rpc.server import GrpcServer
from patchserve_server.telemetry.metrics.definitions import METRICS

IMAGE = gray_png(100)
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@dataclass
class Watched:
    """A server with metrics and the reference `default`, whose detector waits while `detector.gate` is closed."""

    running: RunningServer
    stub: Stub
    detector: FakeDetector

    def scrape(self) -> Scrape:
        return scrape(self.running.metrics_url)

    def value(self, name: str, **labels: str) -> float:
        return self.scrape().total(name, **labels)

    def wait_for(self, value: float, name: str, **labels: str) -> None:
        wait_until(lambda: self.value(name, **labels) == value)


@contextmanager
def watched(**settings: Any) -> Iterator[Watched]:
    detector = FakeDetector()
    with ExitStack() as stack:
        running = stack.enter_context(running_server(detector=detector, metrics_port=0, **settings))
        stack.callback(detector.gate.set)
        stub = stack.enter_context(connect(running.address))
        stub.LoadReference(LoadReferenceRequest(images=[IMAGE]))
        yield Watched(running, stub, detector)


@pytest.fixture
def server() -> Iterator[Watched]:
    with watched() as started:
        yield started
        started.detector.gate.set()
        # Whatever the test has done: nothing is in progress at its end.
        for name in ("rpc_in_flight", "streams_open", "queue_images"):
            started.wait_for(0, name)


def outcome(call: Any) -> Any:
    """The code of a call, when it has ended."""
    with suppress(grpc.RpcError, grpc.FutureCancelledError):
        call.result(60)
    return call.code()


def test_a_call_that_begins_while_the_server_starts_counts_from_its_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    start, watches = GrpcServer.start, []

    async def start_and_watch(self: GrpcServer) -> str:
        address = await start(self)
        channel = grpc.aio.insecure_channel(f"localhost:{address.rpartition(':')[2]}")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()  # it has begun
        watches.append((watch, channel, asyncio.get_running_loop()))
        return address

    monkeypatch.setattr(GrpcServer, "start", start_and_watch)
    with watched() as server:
        assert server.value("rpc_in_flight") == 1
        watch, channel, loop = watches[0]
        loop.call_soon_threadsafe(watch.cancel)
        server.wait_for(0, "rpc_in_flight")
        asyncio.run_coroutine_threadsafe(channel.close(), loop).result(30)


def test_calls_count_by_face_method_and_code(server: Watched) -> None:
    server.stub.Infer(InferRequest(image=IMAGE))
    with pytest.raises(grpc.RpcError):
        server.stub.Infer(InferRequest(image=IMAGE, reference_id="missing"))
    with pytest.raises(grpc.RpcError):
        server.stub.Infer(InferRequest(image=b"no image"))
    urllib.request.urlopen(f"{server.running.http_url}/v1/references/default").read()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{server.running.http_url}/v1/references/missing")
    found = server.scrape()
    for code in ("OK", "NOT_FOUND", "INVALID_ARGUMENT"):
        assert found.total("rpc_requests_total", face="grpc", method="Infer", code=code) == 1
    for code in ("OK", "NOT_FOUND"):
        assert found.total("rpc_requests_total", face="http", method="GetReference", code=code) == 1
    assert found.total("rpc_duration_seconds_count", face="grpc", method="Infer") == 3
    assert found.total("verdicts_total", reference="default") == 1
    assert found.total("anomaly_score_count", reference="default") == 1


def test_an_image_counts_in_each_stage_once_and_in_the_queue_also_if_it_fails(server: Watched) -> None:
    server.stub.Infer(InferRequest(image=IMAGE))
    with pytest.raises(grpc.RpcError):
        server.stub.Infer(InferRequest(image=b"no image"))
    found = server.scrape()
    counts = {sample.labels["stage"]: sample.value for sample in found.matching("stage_duration_seconds_count")}
    assert counts == {"decode": 2, "embed": 1, "search": 1, "render": 1, "encode": 1}
    assert found.total("queue_wait_seconds_count", kind="call") == 2
    assert found.total("queue_wait_seconds_count", kind="load") == 1
    assert found.total("batch_images_count") == 1


def test_a_call_whose_caller_leaves_is_in_progress_until_then(server: Watched) -> None:
    server.detector.gate.clear()
    call = server.stub.Infer.future(InferRequest(image=IMAGE))
    server.wait_for(1, "rpc_in_flight")
    call.cancel()
    server.wait_for(0, "rpc_in_flight")
    found = server.scrape()
    assert found.total("rpc_requests_total", method="Infer", code="CANCELLED") == 1
    assert found.total("cancelled_total") == 1
    assert found.total("queue_wait_seconds_count", kind="call") == 1  # what it has waited counts too


def test_a_call_that_is_over_its_deadline_says_so(server: Watched) -> None:
    server.detector.gate.clear()
    assert (
        outcome(server.stub.Infer.future(InferRequest(image=IMAGE), timeout=0.2)) is grpc.StatusCode.DEADLINE_EXCEEDED
    )
    server.wait_for(0, "rpc_in_flight")
    assert server.value("rpc_requests_total", method="Infer", code="DEADLINE_EXCEEDED") == 1
    assert server.value("cancelled_total") == 0


def test_images_that_wait_are_in_the_queue() -> None:
    with watched(max_batch_size=1) as server:
        server.detector.gate.clear()
        calls = [server.stub.Infer.future(InferRequest(image=IMAGE)) for _ in range(4)]
        server.wait_for(2, "queue_images")  # two workers have one each
        server.detector.gate.set()
        assert [outcome(call) for call in calls] == [grpc.StatusCode.OK] * 4
        server.wait_for(0, "queue_images")


def test_a_rejected_call_counts_with_its_reason() -> None:
    with watched(max_pending_images=2, client_share=1.0) as server:
        server.detector.gate.clear()
        calls = [server.stub.Infer.future(InferRequest(image=IMAGE)) for _ in range(5)]
        wait_until(lambda: sum(call.done() for call in calls) == 3)
        assert server.value("rejected_total", reason="QUEUE_FULL") == 3
        server.detector.gate.set()
        assert sorted(outcome(call).name for call in calls) == ["OK"] * 2 + ["RESOURCE_EXHAUSTED"] * 3
        server.wait_for(0, "rpc_in_flight")


def test_a_stream_is_open_until_its_end_and_each_frame_has_an_outcome(server: Watched) -> None:
    feed = Feed(config("default"), frame(0, IMAGE), frame(1, b"no image"))
    responses = server.stub.InferStream(iter(feed))
    seen = [next(responses) for _ in range(3)]
    assert [each.WhichOneof("payload") for each in seen] == ["ready", "result", "result"]
    server.wait_for(1, "streams_open")
    feed.close()
    assert list(responses) == []
    server.wait_for(0, "streams_open")
    found = server.scrape()
    assert found.total("frames_total", outcome="inspected") == 1
    assert found.total("frames_total", outcome="failed", reason="UNDECODABLE_IMAGE") == 1
    assert found.total("queue_wait_seconds_count", kind="frame") == 2


def test_the_frames_of_a_stream_that_is_cut_are_abandoned(server: Watched) -> None:
    server.detector.gate.clear()
    feed = Feed(config("default"), *(frame(number, IMAGE) for number in range(3)))
    responses = server.stub.InferStream(iter(feed))
    assert next(responses).WhichOneof("payload") == "ready"
    wait_until(lambda: len(server.detector.batches) > 0)
    responses.cancel()
    feed.close()
    server.wait_for(0, "streams_open")
    found = server.scrape()
    taken = found.total("frames_total")
    assert taken >= 1
    assert found.total("frames_total", outcome="abandoned") == taken


def test_dropped_frames_count(server: Watched) -> None:
    server.detector.gate.clear()
    overflow = stream_pb2.OverflowPolicy.OVERFLOW_POLICY_DROP_OLDEST
    feed = Feed(config("default", max_in_flight=1, overflow=overflow), *(frame(number, IMAGE) for number in range(4)))
    responses = server.stub.InferStream(iter(feed))
    assert next(responses).WhichOneof("payload") == "ready"
    server.wait_for(3, "frames_total", outcome="dropped", reason="FRAME_DROPPED")
    server.detector.gate.set()
    feed.close()
    list(responses)
    assert server.value("frames_total", outcome="inspected") == 1


def test_a_websocket_is_a_stream_too(server: Watched) -> None:
    with open_stream(server.running.http_url, "default", "") as stream:
        stream.recv(30)
        server.wait_for(1, "streams_open")
        stream.send(IMAGE)
        assert "response" in json.loads(stream.recv(30))["result"]
    server.wait_for(0, "streams_open")
    assert server.value("rpc_requests_total", face="http", method="InferStream") == 1
    assert server.value("frames_total", outcome="inspected") == 1


def test_a_request_over_http_whose_connection_is_cut_ends(server: Watched) -> None:
    server.detector.gate.clear()
    host, _, port = server.running.http_url.removeprefix("http://").partition(":")
    body = json.dumps({"image": base64.b64encode(IMAGE).decode()}).encode()
    head = f"POST /v1/references/default:infer HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: len(server.detector.batches) == 1)
        assert server.value("rpc_in_flight") == 1
    server.wait_for(0, "rpc_in_flight")
    assert server.value("rpc_requests_total", face="http", method="Infer", code="CANCELLED") == 1


def test_a_reference_beyond_the_limit_is_other_and_a_deleted_one_keeps_its_name() -> None:
    with watched(metrics_max_references=2) as server:
        for name in ("default", "b", "c", "d"):
            server.stub.LoadReference(LoadReferenceRequest(reference_id=name, images=[IMAGE]))
            server.stub.Infer(InferRequest(reference_id=name, image=IMAGE))
        server.stub.DeleteReference(DeleteReferenceRequest(reference_id="b"))
        server.stub.LoadReference(LoadReferenceRequest(reference_id="e", images=[IMAGE]))
        server.stub.Infer(InferRequest(reference_id="e", image=IMAGE))
        found = server.scrape()
    counts = {name: found.total("verdicts_total", reference=name) for name in ("default", "b", "other")}
    assert counts == {"default": 1, "b": 1, "other": 3}
    assert {sample.labels["reference"] for sample in found.matching("anomaly_score_count")} == set(counts)


def test_exemplars_lead_to_the_trace_that_the_caller_records(server: Watched) -> None:
    server.stub.Infer(InferRequest(image=IMAGE))
    without = server.scrape()
    assert not [sample for sample in without.samples if sample.exemplar is not None]
    server.stub.Infer(InferRequest(image=IMAGE), metadata=(("traceparent", TRACEPARENT),))
    found = server.scrape()
    for name in ("rpc_duration_seconds", "stage_duration_seconds", "queue_wait_seconds", "anomaly_score"):
        exemplars = [sample.exemplar for sample in found.matching(f"{name}_bucket") if sample.exemplar is not None]
        assert exemplars, name
        assert {exemplar.labels["trace_id"] for exemplar in exemplars} == {TRACE_ID}


def test_a_scrape_has_every_metric_of_the_table_but_those_of_what_is_not_there(server: Watched) -> None:
    server.stub.Infer(InferRequest(image=IMAGE))
    names = {family.name for family in server.scrape().families}
    absent = {"reference_drift", "certificate_expiry_timestamp_seconds", "token_expiry_timestamp_seconds"}
    expected = {f"patchserve_{metric.name}" for metric in METRICS if metric.name not in absent}
    assert {name for name in names if name.startswith("patchserve_")} - {"patchserve_reference_drift"} == expected


def test_metrics_answer_before_the_server_is_ready_and_say_so() -> None:
    with watched() as server:
        assert server.value("ready") == 1
        assert server.value("references", state="open") == 1
        assert server.value("bank_bytes", place="open") > 0
        [build] = server.scrape().matching("build_info")
        assert build.labels["backbone"] == "fake"
        assert build.labels["decode"] == "cpu"


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(StartupError, match=r"Cannot listen for metrics on .*: the port is in use already\. Choose .*"),
        running_server(metrics_port=taken.getsockname()[1]),
    ):
        raise AssertionError("It has started.")


def test_an_address_that_others_can_reach_needs_tls_as_for_the_other_ports() -> None:
    with (
        pytest.raises(StartupError, match=r"Other machines can reach 0\.0\.0\.0"),
        running_server(metrics_port=0, metrics_host="0.0.0.0"),
    ):
        raise AssertionError("It has started.")


def test_scrapes_and_calls_at_the_same_time_disturb_no_one(server: Watched) -> None:
    failures: queue.Queue[Exception] = queue.Queue()

    def scrape_often() -> None:
        try:
            for _ in range(20):
                server.scrape()
        except Exception as error:  # noqa: BLE001 - the test reports it
            failures.put(error)

    threads = [threading.Thread(target=scrape_often) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        server.stub.Infer(InferRequest(image=IMAGE))
    for thread in threads:
        thread.join()
    assert failures.empty(), failures.get()
    assert server.value("verdicts_total") == 50
