"""Spans of calls, over real sockets: a caller, a server, and a collector of OpenTelemetry."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import requests
from e2e.harness import connect
from e2e.in_process import running_server
from e2e.processes import server_of_processes
from e2e.streaming import config, frame, results
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.otlp_collector import CollectedSpan, Collector, children, collector
from fakes.scrape import scrape
from fakes.waiting import wait_until
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2
from patchserve_client import AsyncClient, Client

IMAGE = gray_png(100)
SERVICE = "patchserve.v1.PatchCoreService"
STEPS = ["queue", "queue", "decode", "queue", "embed", "search", "queue", "render", "encode"]
WAITS = ["turn", "thread", "batch", "thread"]


@dataclass(frozen=True)
class Traced:
    """A server with the reference `default`, which tells a collector."""

    address: str
    http_url: str
    metrics_url: str
    stub: Any
    detector: FakeDetector
    collector: Collector


@pytest.fixture(scope="module")
def traced() -> Iterator[Traced]:
    detector = FakeDetector()
    with collector() as collected, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.address)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
        with running_server(detector=detector, otel=True, metrics_port=0) as server, connect(server.address) as stub:
            stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE]))
            yield Traced(server.address, server.http_url, server.metrics_url, stub, detector, collected)


@pytest.fixture
def tracer() -> Tracer:
    """That of a caller's own program."""
    return TracerProvider(shutdown_on_exit=False).get_tracer("caller")


def headers(number: int, *, sampled: bool = True) -> tuple[str, list[tuple[str, str]]]:
    """The id of a trace, and the metadata that names a span in it."""
    trace_id = f"{number:032x}"
    return trace_id, [("traceparent", f"00-{trace_id}-{7:016x}-{int(sampled):02x}")]


def names(spans: list[CollectedSpan]) -> list[str]:
    return [span.name for span in spans]


def root_of(spans: list[CollectedSpan]) -> CollectedSpan:
    (call,) = (span for span in spans if span.kind == "SERVER")
    return call


def infer_sync(address: str) -> None:
    with Client(address) as client:
        client.infer(IMAGE)


def infer_async(address: str) -> None:
    async def infer() -> None:
        async with AsyncClient(address) as client:
            await client.infer(IMAGE)

    asyncio.run(infer())


@pytest.mark.parametrize("infer", [infer_sync, infer_async], ids=["sync", "asyncio"])
def test_a_call_of_our_client_continues_the_callers_trace(
    traced: Traced, tracer: Tracer, infer: Callable[[str], None]
) -> None:
    with tracer.start_as_current_span("the caller's work") as outer:
        infer(traced.address)
    context = outer.get_span_context()
    spans = traced.collector.trace(f"{context.trace_id:032x}", 1 + len(STEPS))
    call = root_of(spans)
    assert (call.name, call.parent_id) == (f"{SERVICE}/Infer", f"{context.span_id:016x}")
    assert not call.is_error
    expected = {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/Infer",
        "rpc.status_code": "OK",
        "patchserve.reference": "default",
        "network.transport": "tcp",
    }
    assert expected.items() <= call.attributes.items()
    assert call.attributes["client.address"] in ("127.0.0.1", "%5B::1%5D", "::1")
    assert len(call.attributes["patchserve.request_id"]) == 32
    assert "error.type" not in call.attributes
    steps = children(spans, call)
    assert names(steps) == STEPS
    assert [span.attributes["patchserve.wait"] for span in steps if span.name == "queue"] == WAITS
    assert {span.parent_id for span in spans} == {f"{context.span_id:016x}", call.span_id}, "no span is anywhere else"
    slack_ns = 2_000_000  # the two clocks are read one after the other
    assert all(call.start_ns - slack_ns <= span.start_ns <= span.end_ns <= call.end_ns + slack_ns for span in steps)


def test_a_batch_is_a_trace_of_its_own_with_a_link_to_each_image(traced: Traced) -> None:
    traced.detector.gate.clear()
    before = len(traced.detector.batches)
    sent = [headers(100 + number) for number in range(6)]
    calls = [
        traced.stub.Infer.future(inference_pb2.InferRequest(image=IMAGE), metadata=metadata) for _, metadata in sent
    ]
    wait_until(lambda: len(traced.detector.batches) == before + 2)  # both workers have one
    traced.detector.gate.set()
    for call in calls:
        call.result()
    roots = {root_of(traced.collector.trace(trace_id, 1 + len(STEPS))).span_id for trace_id, _ in sent}

    def batches(spans: list[CollectedSpan]) -> list[CollectedSpan]:
        return [span for span in spans if span.name == "batch" and roots & set(span.links)]

    spans = batches(traced.collector.wait_for(lambda all_: sum(len(span.links) for span in batches(all_)) == 6))
    assert {span.parent_id for span in spans} == {""}
    assert {link for span in spans for link in span.links} == roots
    assert [span.attributes["patchserve.batch.images"] for span in spans] == [len(span.links) for span in spans]
    assert {span.attributes["patchserve.batch.references"] for span in spans} == {1}


def test_each_frame_of_a_stream_is_a_span_below_its_call_with_its_own_steps(traced: Traced) -> None:
    trace_id, metadata = headers(200)
    messages = [config(""), frame(0, IMAGE), frame(1, b"no image"), frame(2, IMAGE)]
    outcomes = results(traced.stub.InferStream(iter(messages), metadata=metadata))
    assert [outcome.WhichOneof("outcome") for outcome in outcomes] == ["response", "error", "response"]
    spans = traced.collector.trace(trace_id, 1 + 3 + 2 * len(STEPS) + 3)
    call = root_of(spans)
    assert (call.name, call.attributes["rpc.status_code"]) == (f"{SERVICE}/InferStream", "OK")
    frames = sorted(children(spans, call), key=lambda span: span.start_ns)
    assert names(frames) == ["frame"] * 3
    assert [span.attributes["patchserve.frame.sequence"] for span in frames] == [0, 1, 2]
    assert [span.attributes["patchserve.frame.id"] for span in frames] == ["f0", "f1", "f2"]
    assert [span.attributes["patchserve.frame.result"] for span in frames] == ["inspected", "failed", "inspected"]
    assert [span.is_error for span in frames] == [False, True, False]
    assert frames[1].attributes["error.type"] == "UNDECODABLE_IMAGE"
    assert [names(children(spans, span)) for span in frames] == [STEPS, STEPS[:3], STEPS]


def test_a_callers_error_is_not_an_error_of_the_server_and_a_bug_is(traced: Traced) -> None:
    trace_id, metadata = headers(300)
    with pytest.raises(grpc.RpcError):
        traced.stub.Infer(inference_pb2.InferRequest(reference_id="nobody", image=IMAGE), metadata=metadata)
    call = root_of(traced.collector.trace(trace_id, 1))
    assert not call.is_error
    expected = {"rpc.status_code": "NOT_FOUND", "patchserve.reason": "REFERENCE_NOT_FOUND"}
    assert expected.items() <= call.attributes.items()
    assert "error.type" not in call.attributes
    trace_id, metadata = headers(301)
    traced.detector.failure = ValueError("a bug")
    with pytest.raises(grpc.RpcError):
        traced.stub.Infer(inference_pb2.InferRequest(image=IMAGE), metadata=metadata)
    call = root_of(traced.collector.trace(trace_id, 1))
    assert call.is_error
    expected = {"rpc.status_code": "INTERNAL", "error.type": "INTERNAL", "patchserve.reason": "INTERNAL"}
    assert expected.items() <= call.attributes.items()


def test_a_call_whose_caller_leaves_ends_its_span(traced: Traced) -> None:
    traced.detector.gate.clear()
    before = len(traced.detector.batches)
    trace_id, metadata = headers(400)
    call = traced.stub.Infer.future(inference_pb2.InferRequest(image=IMAGE), metadata=metadata)
    wait_until(lambda: len(traced.detector.batches) > before)
    call.cancel()
    spans = traced.collector.trace(trace_id, 1 + 3)
    traced.detector.gate.set()
    cancelled = root_of(spans)
    assert (cancelled.attributes["rpc.status_code"], cancelled.is_error) == ("CANCELLED", False)
    assert names(children(spans, cancelled))[:3] == STEPS[:3]


def test_a_stream_whose_caller_leaves_ends_the_spans_of_its_frames(traced: Traced) -> None:
    traced.detector.gate.clear()
    before = len(traced.detector.batches)
    trace_id, metadata = headers(401)
    call = traced.stub.InferStream(iter([config(""), frame(0, IMAGE)]), metadata=metadata)
    wait_until(lambda: len(traced.detector.batches) > before)
    call.cancel()
    spans = traced.collector.trace(trace_id, 2)
    traced.detector.gate.set()
    (abandoned,) = children(spans, root_of(spans))
    assert abandoned.attributes["patchserve.frame.result"] == "abandoned"


def test_a_call_over_http_continues_the_trace_of_its_headers(traced: Traced) -> None:
    trace_id, metadata = headers(500)
    url = f"{traced.http_url}/v1/references/default:infer"
    answer = requests.post(url, files={"image": IMAGE}, headers=dict(metadata), timeout=30)
    assert answer.status_code == 200
    spans = traced.collector.trace(trace_id, 1 + len(STEPS))
    call = root_of(spans)
    assert (call.name, call.parent_id) == ("Infer", f"{7:016x}")
    expected = {"rpc.system.name": "http", "rpc.method": "Infer", "rpc.status_code": "OK"}
    assert expected.items() <= call.attributes.items()
    assert names(children(spans, call)) == STEPS


def test_a_load_is_a_span_with_its_stages_and_the_store_below_its_call(traced: Traced) -> None:
    trace_id, metadata = headers(600)
    request = reference_pb2.LoadReferenceRequest(reference_id="loaded", images=[IMAGE] * 3)
    traced.stub.LoadReference(request, metadata=metadata)
    spans = traced.collector.trace(trace_id, 3)
    below = children(spans, root_of(spans))
    assert {"load", "store save"} <= set(names(below))
    assert all(span.start_ns <= span.end_ns for span in spans)


def test_a_trace_that_its_caller_does_not_record_is_not_recorded(traced: Traced) -> None:
    trace_id, metadata = headers(700, sampled=False)
    traced.stub.Infer(inference_pb2.InferRequest(image=IMAGE), metadata=metadata)
    later_id, metadata = headers(701)
    traced.stub.Infer(inference_pb2.InferRequest(image=IMAGE), metadata=metadata)
    spans = traced.collector.trace(later_id, 1 + len(STEPS))
    assert trace_id not in {span.trace_id for span in traced.collector.spans}
    wait_until(lambda: any(root_of(spans).span_id in span.links for span in traced.collector.spans))


@pytest.mark.parametrize(
    "trace_parent",
    [
        "",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "g" * 32 + "-" + "1" * 16 + "-01",
        "x" * 5000,
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01-" + "x" * 5000,
    ],
)
def test_a_header_that_names_no_trace_begins_a_new_one(traced: Traced, trace_parent: str) -> None:
    request = server_info_pb2.GetServerInfoRequest()

    def calls(spans: list[CollectedSpan]) -> int:
        return sum(span.name.endswith("/GetServerInfo") for span in spans)

    before = calls(traced.collector.spans)
    traced.stub.GetServerInfo(request, metadata=[("traceparent", trace_parent)])
    spans = traced.collector.wait_for(lambda all_: calls(all_) > before)
    last = [span for span in spans if span.name.endswith("/GetServerInfo")][-1]
    assert last.parent_id == ""
    assert last.trace_id != "1" * 32


def test_the_durations_of_calls_arrive_as_the_conventions_name_them(traced: Traced) -> None:
    traced.stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())
    wait_until(lambda: bool(traced.collector.metrics))
    metric = traced.collector.metrics[-1]
    assert (metric.name, metric.unit) == ("rpc.server.call.duration", "s")
    keys = {pair.key for point in metric.histogram.data_points for pair in point.attributes}
    assert {"rpc.system.name", "rpc.method", "rpc.status_code"} <= keys
    assert metric.histogram.data_points[0].explicit_bounds[0] == 0.005


def test_the_server_says_which_one_it_is(traced: Traced) -> None:
    traced.stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())
    wait_until(lambda: bool(traced.collector.resource))
    assert traced.collector.resource["service.name"] == "patchserve"
    assert traced.collector.resource["service.version"]


def test_no_call_waits_for_a_collector_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as collected:
        collected.answers.clear()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
        with running_server(otel=True, http_port=None) as server, connect(server.address) as stub:
            for _ in range(50):
                stub.GetServerInfo(server_info_pb2.GetServerInfoRequest(), timeout=10)


def test_with_several_processes_the_spans_of_the_engine_belong_to_the_call_of_a_front(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with collector() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        with server_of_processes("--otel") as server, connect(server.address) as stub:
            load_id, metadata = headers(800)
            stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE]), metadata=tuple(metadata))
            infer_id, metadata = headers(801)
            stub.Infer(inference_pb2.InferRequest(image=IMAGE), metadata=tuple(metadata))
            load = collected.trace(load_id, 3)
            infer = collected.trace(infer_id, 1 + len(STEPS))
            call = root_of(infer)
            collected.wait_for(lambda spans: any(span.links == (call.span_id,) for span in spans))
    assert {"load", "store save"} <= set(names(children(load, root_of(load))))
    assert names(children(infer, call)) == STEPS


def test_without_it_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys\n"
        "from e2e.harness import connect\n"
        "from e2e.in_process import running_server\n"
        "from patchserve.v1 import server_info_pb2\n"
        "with running_server() as server, connect(server.address) as stub:\n"
        "    stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    paths = [path for path in sys.path if path]
    program = f"import sys; sys.path[:0] = {paths!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_an_exemplar_of_the_metrics_is_the_id_of_a_trace_that_the_collector_has(traced: Traced) -> None:
    traced.stub.Infer(inference_pb2.InferRequest(image=IMAGE))
    found = scrape(traced.metrics_url).matching("stage_duration_seconds_bucket", stage="search")
    ids = {sample.exemplar.labels["trace_id"] for sample in found if sample.exemplar is not None}
    assert ids
    for trace_id in ids:
        assert traced.collector.trace(trace_id, 1)
