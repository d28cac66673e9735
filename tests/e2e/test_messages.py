"""Messages made to hurt, and calls that send none: refused or ended in time, and nobody else notices."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.harness import MESSAGE_OPTIONS, Stub, connect, load, refusal
from e2e.in_process import in_process_server
from e2e.streaming import Feed, config, frame
from fakes.gray import gray_png
from fakes.images import card
from fakes.waiting import wait_until
from fakes.wire import delimited
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.kserve import open_inference_pb2 as kserve
from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve_client import Client
from patchserve_server.access.tokens import new_token
from patchserve_server.contract.methods import SMALL_MESSAGE_BYTES, RequestSize
from patchserve_server.domain.callers import Scope
from patchserve_server.rpc import reading, transport
from patchserve_server.rpc.methods import METHODS
from patchserve_server.serving import reception

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
INFER = inference_pb2.InferRequest(image=gray_png(100))
LOAD = reference_pb2.LoadReferenceRequest(images=[gray_png(100)])
INFO = server_info_pb2.GetServerInfoRequest()
SMALL = sorted(name for name, method in METHODS.items() if method.request_size is RequestSize.SMALL)
LARGE = sorted(name for name, method in METHODS.items() if method.request_size is RequestSize.LARGE)
MIB = 2**20

Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    with in_process_server() as address, grpc.insecure_channel(address, options=MESSAGE_OPTIONS) as channel:
        load(Stub(channel), "", 1)
        yield channel


def send(channel: grpc.Channel, method: str, messages: Iterable[bytes], **options: Any) -> Any:
    call: Any = channel.stream_stream(method)
    return call(iter(messages), **options)


def refused(channel: grpc.Channel, method: str, *messages: bytes) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        list(send(channel, method, messages, timeout=60))
    assert len(str(caught.value.details())) < 300
    return refusal(caught.value)[:2]


@pytest.mark.parametrize("method", SMALL)
def test_a_message_without_images_has_a_few_kib(channel: grpc.Channel, method: str) -> None:
    for size in (SMALL_MESSAGE_BYTES + 1, 8 * MIB):
        data = delimited(1, bytes(size))[:size]
        assert refused(channel, method, data) == (INVALID, "REQUEST_TOO_LARGE")
    assert Stub(channel).GetServerInfo(INFO).limits.max_calls


@pytest.mark.parametrize("method", LARGE)
def test_a_message_of_very_many_parts_is_not_parsed(channel: grpc.Channel, method: str) -> None:
    field = {"LoadReference": 2, "ModelInfer": 5, "ModelStreamInfer": 5}.get(method.rpartition("/")[2], 1)
    data = delimited(field, b"") * MIB
    assert refused(channel, method, data) == (INVALID, "INVALID_FIELD")


def test_a_very_long_frame_id_ends_the_stream_and_is_not_repeated(channel: grpc.Channel) -> None:
    messages = [config(""), frame(0, gray_png(100)), frame(1, gray_png(100))]
    messages[2].frame.frame_id = "a" * 8 * MIB
    responses = send(channel, "/patchserve.v1.PatchCoreService/InferStream", [m.SerializeToString() for m in messages])
    accepted = [stream_pb2.InferStreamResponse.FromString(next(responses)).WhichOneof("payload") for _ in range(2)]
    assert accepted == ["ready", "result"]
    with pytest.raises(grpc.RpcError) as caught:
        next(responses)
    assert refusal(caught.value)[:2] == (INVALID, "INVALID_FIELD")


def test_large_typed_contents_are_refused_with_a_word_for_raw_contents(channel: grpc.Channel) -> None:
    request = kserve.ModelInferRequest(model_name="default")
    tensor = request.inputs.add(name="pixels", datatype="UINT8", shape=[1200, 1200, 3])
    tensor.contents.uint_contents.extend([0] * (1200 * 1200 * 3))
    with pytest.raises(grpc.RpcError) as caught:
        list(send(channel, "/inference.GRPCInferenceService/ModelInfer", [request.SerializeToString()]))
    assert refusal(caught.value)[:2] == (INVALID, "INVALID_FIELD")
    assert "raw_input_contents" in str(caught.value.details())


def test_health_answers_as_the_standard_says(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    service = "patchserve.v1.PatchCoreService"
    assert [health.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", service)] == [1, 1]
    assert set(health.List(health_pb2.HealthListRequest()).statuses) == {"", service}
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert refusal(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SERVICE")
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="other"))
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


def test_who_watches_health_learns_of_the_drain() -> None:
    stop = threading.Event()
    with (
        in_process_server(stop=stop, drain_delay_s=0.5, drain_grace_s=1000.0) as address,
        grpc.insecure_channel(address) as channel,
    ):
        request = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
        statuses = health_pb2_grpc.HealthStub(channel).Watch(request)
        assert next(statuses).status == health_pb2.HealthCheckResponse.SERVING
        stop.set()
        assert next(statuses).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(statuses)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


def test_probes_that_stay_open_are_limited_and_others_are_answered(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    per_client = reading.OPEN_PROBES.count // 4
    watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(per_client)]
    for watch in watches:
        next(watch)
    with pytest.raises(grpc.RpcError) as caught:
        next(health.Watch(health_pb2.HealthCheckRequest()))
    assert refusal(caught.value)[:2] == (EXHAUSTED, "QUEUE_FULL")
    assert health.Check(health_pb2.HealthCheckRequest()).status == 1
    for watch in watches:
        watch.cancel()
    wait_until(lambda: refused_or_none(health) is None)


def refused_or_none(health: Any) -> str | None:
    watch = health.Watch(health_pb2.HealthCheckRequest())
    try:
        next(watch)
    except grpc.RpcError as error:
        return refusal(error)[1]
    watch.cancel()
    return None


@contextmanager
def guarded(tmp_path: Path, *names: str, **settings: Any) -> Iterator[tuple[str, list[Metadata]]]:
    """A server with a reference, and the metadata of a token for each name."""
    tokens, lines = zip(*(new_token(name, list(Scope)) for name in names), strict=True)
    (tmp_path / "tokens").write_text("\n".join(lines) + "\n")
    metadata: list[Metadata] = [(("authorization", f"Bearer {token}"),) for token in tokens]
    with in_process_server(auth_tokens=tmp_path / "tokens", **settings) as address:
        with connect(address) as stub:
            stub.LoadReference(LOAD, metadata=metadata[-1])
        yield address, metadata


def silence(until: threading.Event) -> Iterator[bytes]:
    until.wait(60)
    yield from ()


def is_at_its_limit(stub: Stub, metadata: Metadata) -> bool:
    try:
        stub.GetServerInfo(INFO, metadata=metadata, timeout=60)
    except grpc.RpcError as error:
        return refusal(error)[:2] == (EXHAUSTED, "QUEUE_FULL")
    return False


def test_calls_that_send_nothing_keep_nobody_out(tmp_path: Path) -> None:
    limits = {"max_calls": 8, "max_pending_loads": 4, "max_pending_images": 8}
    methods = [f"/patchserve.v1.PatchCoreService/{name}" for name in ("LoadReference", "InferStream") for _ in range(2)]
    with guarded(tmp_path, *"abcd", "modest", **limits) as (address, tokens), connect(address) as stub:
        *attackers, modest = tokens
        over = threading.Event()
        with grpc.insecure_channel(address) as channel:
            calls: list[Any] = []  # gRPC cancels a call that nobody refers to

            def has_all_it_can_get(metadata: Metadata) -> bool:
                if is_at_its_limit(stub, metadata):
                    return True
                # Some may be rejected: the question itself takes a place for a moment.
                calls.extend(send(channel, method, silence(over), metadata=metadata) for method in methods)
                return False

            for metadata in attackers:
                wait_until(partial(has_all_it_can_get, metadata))
            assert stub.Infer(INFER, metadata=modest, timeout=60).reference_id == "default"
            assert stub.LoadReference(LOAD, metadata=modest, timeout=60).reference.image_count == 1
            stream = stub.InferStream(iter([config(""), frame(0, gray_png(100))]), metadata=modest, timeout=60)
            assert [response.WhichOneof("payload") for response in stream] == ["ready", "result"]
            outcomes = [call.exception(60) if call.done() else None for call in calls]
            ended = [refusal(error)[:2] for error in outcomes if isinstance(error, grpc.RpcError)]
            assert set(ended) <= {(EXHAUSTED, "IDLE"), (EXHAUSTED, "QUEUE_FULL")}
            assert (EXHAUSTED, "IDLE") in ended, "some of the silent calls lost their places"
            over.set()


def test_idle_streams_of_one_client_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "IDLE_AFTER_S", 0.2)
    with in_process_server(max_idle_streams=1) as address, connect(address) as stub:
        load(stub, "", 1)
        feeds = [Feed(config("")) for _ in range(3)]
        streams = [stub.InferStream(iter(feed)) for feed in feeds]
        for stream in streams:
            assert next(stream).HasField("ready")
        for stream in streams[:2]:
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            code, reason, details = refusal(caught.value)
            assert (code, reason) == (EXHAUSTED, "IDLE")
            assert "RetryInfo" in details
        feeds[2].send(frame(0, gray_png(100)))
        assert next(streams[2]).HasField("result")
        for feed in feeds:
            feed.close()


def test_our_client_resumes_a_stream_that_was_ended_because_it_was_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "IDLE_AFTER_S", 0.2)
    with in_process_server(max_idle_streams=1) as address, connect(address) as stub, Client(address) as client:
        load(stub, "", 1)
        other_has_ended = threading.Event()

        def frames() -> Iterator[Any]:
            yield card(1)
            assert other_has_ended.wait(60)
            yield card(2)

        def be_idle() -> None:
            feed: Any = Feed(config(""))
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.InferStream(iter(feed)))
            feed.close()
            assert refusal(caught.value)[1] == "IDLE"
            other_has_ended.set()

        results = client.infer_stream(frames(), "default", resume_for_s=60)
        assert next(results).sequence == 0
        # This stream is idle for longer, so it ends first. It comes back, and then the other one ends.
        other = threading.Thread(target=be_idle)
        other.start()
        assert next(results).sequence == 1
        other.join()


def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_TIMEOUT_S", 1)
    with in_process_server() as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            while connection.recv(4096):
                pass  # the server's settings, then its goodbye
