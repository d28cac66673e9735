"""Overload: rejected at once and with a reason, nobody starved, nothing held for callers that have gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.harness import MESSAGE_OPTIONS, Stub, refusal
from e2e.in_process import in_process_server
from e2e.streaming import Feed, config, frame
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.images import encoded, noise
from fakes.relay import relayed
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2
from patchserve_server.access.tokens import new_token
from patchserve_server.bootstrap.pools import INFERENCE_WORKERS
from patchserve_server.domain.callers import Scope

EXHAUSTED, LATE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED
IMAGE = inference_pb2.InferRequest(image=gray_png(100))
NOWHERE = inference_pb2.InferRequest(reference_id="nowhere", image=gray_png(100))
INFO = server_info_pb2.GetServerInfoRequest()


class Scene:
    """A server with a loaded reference and a detector that waits, and its clients."""

    def __init__(self, stack: ExitStack, detector: FakeDetector, address: str) -> None:
        self._stack = stack
        self.detector = detector
        self.address = address
        self.stub = self.client()

    def client(self) -> Stub:
        """A client with a connection of its own."""
        options = [*MESSAGE_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        return Stub(self._stack.enter_context(grpc.insecure_channel(self.address, options)))

    def has_room(self) -> bool:
        """Whether a single call is admitted. The call is for an unknown reference, so it is answered at once."""
        with pytest.raises(grpc.RpcError) as caught:
            self.stub.Infer(NOWHERE)
        return refusal(caught.value)[1] == "REFERENCE_NOT_FOUND"


@contextmanager
def scene(**settings: Any) -> Iterator[Scene]:
    detector = FakeDetector()
    with ExitStack() as stack:
        stack.callback(detector.gate.set)
        address = stack.enter_context(in_process_server(detector=detector, max_batch_size=1, **settings))
        built = Scene(stack, detector, address)
        if "auth_tokens" not in settings:
            built.stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[gray_png(100)]))
        detector.gate.clear()
        yield built


def refused(calls: Sequence[Any]) -> list[tuple[grpc.StatusCode, str]]:
    errors = [call.exception() for call in calls if call.done()]
    return [refusal(error)[:2] for error in errors if isinstance(error, grpc.RpcError)]


def test_calls_over_the_limit_are_rejected_at_once_and_the_others_answered() -> None:
    with scene(max_pending_images=4, client_share=1) as at:
        calls = [at.stub.Infer.future(IMAGE) for _ in range(6)]
        wait_until(lambda: len(refused(calls)) == 2)
        error = next(call.exception() for call in calls if call.done())
        assert isinstance(error, grpc.RpcError)
        code, reason, details = refusal(error)
        assert (code, reason) == (EXHAUSTED, "QUEUE_FULL")
        assert details["RetryInfo"].retry_delay.ToMilliseconds() > 0  # type: ignore[attr-defined]
        at.detector.gate.set()
        assert len([call for call in calls if call.exception() is None]) == 4
        wait_until(at.has_room)


def test_the_bytes_of_images_are_limited_too() -> None:
    large = inference_pb2.InferRequest(image=encoded(noise(480), "PNG"))  # 700 KB
    with scene(max_pending_mib=1, max_message_mib=1) as at:
        calls = [at.stub.Infer.future(large) for _ in range(2)]
        wait_until(lambda: len(refused(calls)) == 1)
        small = at.stub.Infer.future(IMAGE)
        at.detector.gate.set()
        assert small.exception() is None
        assert len([call for call in calls if call.exception() is None]) == 1


def test_a_client_at_its_limit_does_not_keep_out_another(tmp_path: Path) -> None:
    tokens, lines = zip(*(new_token(name, list(Scope)) for name in ("greedy", "modest")), strict=True)
    (tmp_path / "tokens").write_text("\n".join(lines) + "\n")
    greedy, modest = ((("authorization", f"Bearer {token}"),) for token in tokens)
    with scene(max_pending_images=8, auth_tokens=tmp_path / "tokens") as at:
        load = reference_pb2.LoadReferenceRequest(images=[gray_png(100)])
        at.stub.LoadReference(load, metadata=greedy)
        calls = [at.stub.Infer.future(IMAGE, metadata=greedy) for _ in range(8)]
        wait_until(lambda: len(refused(calls)) == 4)
        others = [at.stub.Infer.future(IMAGE, metadata=modest) for _ in range(2)]
        at.detector.gate.set()
        assert [call.exception() for call in others] == [None, None]
        assert len([call for call in calls if call.exception() is None]) == 4


def test_calls_are_limited_and_probes_are_not() -> None:
    with scene(max_calls=2, client_share=1) as at:
        feeds = [Feed(config("")) for _ in range(2)]
        streams = [at.stub.InferStream(iter(feed)) for feed in feeds]
        for stream in streams:
            next(stream)
        with grpc.insecure_channel(at.address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                Stub(channel).GetServerInfo(INFO)
            assert refusal(caught.value)[:2] == (EXHAUSTED, "QUEUE_FULL")
            assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
            assert ProtoReflectionDescriptorDatabase(channel).get_services()
        feeds[0].close()
        assert list(streams[0]) == []
        limits = at.stub.GetServerInfo(INFO).limits
        assert (limits.max_calls, limits.max_client_calls) == (2, 2)
        streams[1].cancel()
        feeds[1].close()


def test_a_load_over_the_limit_is_rejected_before_it_is_sent() -> None:
    with scene(max_pending_loads=1) as at:
        feed: Any = Feed()
        load = at.stub.LoadReferenceStream.future(iter(feed))  # has sent nothing
        request = reference_pb2.LoadReferenceRequest(images=[gray_png(100)])

        def second_is_refused() -> bool:
            nonlocal load
            if load.done():  # it came while an earlier second load was in
                load = at.stub.LoadReferenceStream.future(iter(feed))
            call = at.stub.LoadReference.future(request)
            return call.exception() is not None and refused([call]) == [(EXHAUSTED, "QUEUE_FULL")]

        wait_until(second_is_refused)
        load.cancel()
        feed.close()
        wait_until(lambda: at.stub.LoadReference.future(request).exception() is None)


def test_an_image_whose_caller_has_gone_is_not_computed() -> None:
    with scene(max_pending_images=INFERENCE_WORKERS + 1, client_share=1) as at:
        kept = [at.stub.Infer.future(IMAGE) for _ in range(INFERENCE_WORKERS)]
        wait_until(lambda: len(at.detector.batches) == INFERENCE_WORKERS)
        gone = at.stub.Infer.future(IMAGE)
        wait_until(lambda: not at.has_room())
        gone.cancel()
        wait_until(at.has_room)
        at.detector.gate.set()
        assert [call.exception() for call in kept] == [None] * INFERENCE_WORKERS
        assert at.stub.Infer(IMAGE).reference_id == "default"
        assert len(at.detector.batches) == INFERENCE_WORKERS + 1


def test_a_call_without_a_deadline_gets_the_servers_time_limit() -> None:
    with scene(default_timeout_s=0.5) as at:
        calls = [at.stub.Infer.future(IMAGE) for _ in range(2 * INFERENCE_WORKERS)]
        assert {refusal(call.exception())[:2] for call in calls} == {(LATE, "DEADLINE")}  # type: ignore[arg-type]
        at.detector.gate.set()
        assert len(at.detector.batches) == INFERENCE_WORKERS, "the others left the queue"


@pytest.mark.parametrize("method", ["Infer", "InferStream", "LoadReference", "LoadReferenceStream", "GetServerInfo"])
def test_a_call_that_sends_nothing_ends(method: str) -> None:
    with scene(first_message_timeout_s=0.3) as at, grpc.insecure_channel(at.address) as channel:
        feed: Any = Feed()
        call: Any = channel.stream_stream(f"/patchserve.v1.PatchCoreService/{method}")(iter(feed))
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert refusal(caught.value)[:2] == (LATE, "MESSAGE_TIMEOUT")
        feed.close()
        wait_until(at.has_room)


def test_a_deadline_has_an_upper_bound() -> None:
    with scene(max_timeout_s=0.5, default_timeout_s=0.2) as at:
        calls = [at.stub.Infer.future(IMAGE, timeout=3600) for _ in range(2 * INFERENCE_WORKERS)]
        for call in calls:
            error = call.exception()
            assert isinstance(error, grpc.RpcError)
            assert refusal(error)[:2] == (LATE, "DEADLINE")
            assert "0.5 s, the longest time limit" in str(error)
        at.detector.gate.set()


def stall(at: Scene) -> Any:
    """A stream of large results that nobody reads."""
    large = encoded(noise(1000), "BMP")  # 3 MB; its overlay is as large, and no buffer on the way takes 40
    frames = [frame(number, large) for number in range(40)]
    stalled = at.stub.InferStream(iter([config("", output={"overlay": True}), *frames]))
    assert next(stalled).HasField("ready")
    return stalled


def test_a_stream_whose_results_are_not_read_ends_and_releases_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "patchserve_server")
    with scene(max_pending_images=2, stream_write_timeout_s=0.5, client_share=1) as at:
        at.detector.gate.set()
        stalled = stall(at)
        wait_until(lambda: "does not read its results" in caplog.text)
        other = at.client().InferStream(iter([config(""), frame(0, gray_png(100))]), timeout=60)
        assert next(other).HasField("ready")
        assert next(other).result.HasField("response"), "the one place for streams is free again"
        with pytest.raises(grpc.RpcError) as caught:
            list(stalled)
        assert refusal(caught.value)[:2] == (LATE, "READER_STALLED")


def test_a_stream_whose_results_are_not_read_does_not_hold_up_the_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "patchserve_server")
    stop = threading.Event()
    with scene(stop=stop, stream_write_timeout_s=0.2, drain_grace_s=1.0) as at:
        at.detector.gate.set()
        stalled = stall(at)
        wait_until(lambda: "does not read its results" in caplog.text)
        stop.set()
        wait_until(lambda: "Stopped" in caplog.text)
        stalled.cancel()


def test_a_stream_outlives_the_age_of_its_connection_and_new_calls_use_a_new_one() -> None:
    with scene(max_connection_age_s=0.5) as at, relayed(at.address) as relay:
        at.detector.gate.set()
        with grpc.insecure_channel(relay.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub, feed = Stub(channel), Feed(config(""))
            stream = stub.InferStream(iter(feed))
            assert next(stream).HasField("ready")

            def has_reconnected() -> bool:
                stub.GetServerInfo(INFO)
                return relay.accepted > 2

            wait_until(has_reconnected)
            feed.send(frame(0, gray_png(100)))
            assert next(stream).result.HasField("response")
            feed.close()
            assert list(stream) == []


def test_calls_accepted_before_a_stop_are_answered() -> None:
    stop = threading.Event()
    with scene(stop=stop, drain_grace_s=60.0, client_share=1, max_pending_images=8) as at:
        at.detector.fit_gate.clear()
        asked = [at.stub.Infer.future(IMAGE) for _ in range(9)]
        wait_until(lambda: len(refused(asked)) == 1)  # then the others are accepted
        calls: list[Any] = [call for call in asked if not call.done()]
        calls.append(at.stub.LoadReference.future(reference_pb2.LoadReferenceRequest(images=[gray_png(1)])))
        loads = reference_pb2.ListLoadsRequest()
        wait_until(lambda: bool(at.stub.ListLoads(loads).loads) and bool(at.detector.batches))
        stop.set()
        with grpc.insecure_channel(at.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            ready = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")

            def refuses() -> bool:
                try:
                    return bool(health.Check(ready).status == 2)
                except grpc.RpcError:
                    return True

            wait_until(refuses)
        at.detector.gate.set()
        at.detector.fit_gate.set()
        assert [call.exception() for call in calls] == [None] * 9
