"""The log of a server that is called over real sockets: one line a call, and nothing of a caller's making in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from e2e.harness import connect
from e2e.in_process import RunningServer, running_server
from e2e.streaming import config, frame, results
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.waiting import wait_until

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.call_events import CALL_LOG
from patchserve_server.domain.callers import Scope
from patchserve_server.telemetry.log_handler import BackgroundHandler
from patchserve_server.telemetry.log_lines import writer_of

IMAGE = gray_png(100)
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
HOSTILE = '\n{"level":"error"}\x1b[2J\x1b]0;x\x07\u202egnp.exe\u2028\x00'
Line = dict[str, Any]


class Log:
    """What a server has logged, as JSON lines."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.text.splitlines()]

    def calls(self, method: str) -> list[Line]:
        return [line for line in self.lines if line["logger"].startswith(CALL_LOG) and line.get("method") == method]

    def wait_for(self, method: str, count: int = 1, *, holds: Callable[[Line], bool] = lambda _: True) -> list[Line]:
        """The lines of calls of this method, as soon as there are so many."""
        wait_until(lambda: sum(map(holds, self.calls(method))) >= count)
        return [line for line in self.calls(method) if holds(line)]


@contextmanager
def logging_at(level: int) -> Iterator[Log]:
    log, logger = Log(), logging.getLogger("patchserve_server")
    handler, before = BackgroundHandler(log.stream, writer_of("json")), logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield log
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture
def log() -> Iterator[Log]:
    with logging_at(logging.INFO) as log:
        yield log


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(log_frames=10) as server, connect(server.address) as stub:
        stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE]))
        yield server


@pytest.fixture
def stub(server: RunningServer) -> Iterator[Any]:
    with connect(server.address) as stub:
        yield stub


def test_each_call_has_one_line_with_what_is_known_of_it(stub: Any, log: Log) -> None:
    metadata = [("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01")]
    stub.Infer(inference_pb2.InferRequest(image=IMAGE), metadata=metadata)
    (line,) = log.wait_for("Infer")
    assert len(line.pop("request_id")) == 32
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("duration_ms") > 0
    assert line.pop("client").startswith("peer ipv")
    assert line == {
        "level": "info",
        "logger": f"{CALL_LOG}.ok",
        "event": "Infer OK",
        "code": "OK",
        "face": "grpc",
        "method": "Infer",
        "reference": "default",
        "trace_id": TRACE_ID,
    }


def test_a_call_over_http_has_the_same_line(server: RunningServer, log: Log) -> None:
    url = f"{server.http_url}/v1/references/default:infer"
    answer = requests.post(url, files={"image": IMAGE}, timeout=30)
    (line,) = log.wait_for("Infer")
    assert line["request_id"] == answer.headers["x-request-id"]
    expected = {"event": "HTTP Infer OK", "code": "OK", "face": "http", "reference": "default"}
    assert expected.items() <= line.items()


def test_a_failed_call_says_why(stub: Any, log: Log) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(inference_pb2.InferRequest(reference_id="nobody", image=IMAGE))
    assert isinstance(caught.value, grpc.Call)
    (line,) = log.wait_for("Infer")
    assert line["event"] == f"Infer NOT_FOUND: {caught.value.details()}"
    expected = {"code": "NOT_FOUND", "reason": "REFERENCE_NOT_FOUND", "reference": "nobody"}
    assert expected.items() <= line.items()


def test_a_call_whose_caller_leaves_has_a_line(log: Log) -> None:
    detector = FakeDetector()
    with running_server(detector=detector, http_port=None) as server, connect(server.address) as stub:
        stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE]))
        detector.gate.clear()
        call = stub.Infer.future(inference_pb2.InferRequest(image=IMAGE))
        wait_until(lambda: bool(detector.batches))
        call.cancel()
        (line,) = log.wait_for("Infer")
        detector.gate.set()
    assert (line["code"], line["level"]) == ("CANCELLED", "info")


def test_a_bug_is_logged_with_its_call(log: Log) -> None:
    detector = FakeDetector()
    with running_server(detector=detector, http_port=None) as server, connect(server.address) as stub:
        stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE]))
        detector.failure = ValueError(HOSTILE)
        with pytest.raises(grpc.RpcError):
            stub.Infer(inference_pb2.InferRequest(image=IMAGE))
        (ended,) = log.wait_for("Infer")
    (line,) = (line for line in log.lines if "exception" in line)
    assert line["request_id"] == ended["request_id"]
    assert (line["level"], ended["code"], ended["reason"]) == ("error", "INTERNAL", "INTERNAL")
    assert "\x1b" not in line["exception"]


def test_of_the_frames_of_a_stream_some_have_a_line(stub: Any, log: Log) -> None:
    frames = [frame(number, IMAGE if number != 10 else b"no image") for number in range(25)]
    assert len(results(stub.InferStream(iter([config(""), *frames])))) == 25
    lines = log.wait_for("InferStream", 4)
    *sampled, ended = lines
    assert (ended["event"], ended["code"]) == ("InferStream OK", "OK")
    assert [line["sequence"] for line in sampled] == [0, 10, 20]
    assert [line["frame_id"] for line in sampled] == ["f0", "f10", "f20"]
    assert [line["result"] for line in sampled] == ["inspected", "failed", "inspected"]
    assert [line.get("reason") for line in sampled] == [None, "UNDECODABLE_IMAGE", None]
    assert {line["request_id"] for line in lines} == {ended["request_id"]}


def test_probes_are_logged_at_level_debug_only(server: RunningServer) -> None:
    with logging_at(logging.DEBUG) as log:
        requests.get(f"{server.http_url}/v2/health/ready", timeout=30)
        wait_until(lambda: "health" in log.text or "ServerReady" in log.text)
        assert {line["level"] for line in log.lines if line["logger"].startswith(CALL_LOG)} == {"debug"}


def test_nothing_of_a_callers_making_gets_into_the_log_as_it_came(tmp_path: Path) -> None:
    token, line = new_token("robot", {Scope.INFER, Scope.MANAGE})
    (tmp_path / "tokens").write_text(line)
    with (
        logging_at(logging.DEBUG) as log,
        running_server(log_frames=1, auth_tokens=tmp_path / "tokens") as server,
        connect(server.address) as stub,
    ):
        allowed = {"authorization": f"Bearer {token}"}
        send_hostile_grpc(stub, list(allowed.items()))
        send_hostile_http(server.http_url, allowed)
        log.wait_for("InferStream", 2)
        log.wait_for("GetServerInfo")
    assert all(text.isprintable() for text in log.text.split("\n"))
    for fields in log.lines:
        for name, value in fields.items():
            if name != "exception":
                assert str(value).isprintable(), fields
                assert len(str(value)) < 1100, fields
    assert "robot" in log.text
    assert token.removeprefix("patchserve_") not in log.text
    assert "IHDR" not in log.text


def send_hostile_grpc(stub: Any, metadata: list[tuple[str, str]]) -> None:
    long = HOSTILE * 10
    stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE]), metadata=metadata)
    frames = (stream_pb2.Frame(frame_id=name, image=IMAGE) for name in (HOSTILE, "x" * 128, long))
    messages = [config(""), *(stream_pb2.InferStreamRequest(frame=frame) for frame in frames)]
    list(stub.InferStream(iter(messages), metadata=metadata))
    for request in (
        inference_pb2.InferRequest(image=IMAGE, image_name=HOSTILE),
        inference_pb2.InferRequest(image=IMAGE, reference_id=HOSTILE),
        inference_pb2.InferRequest(image=IMAGE, reference_id="x" * 1000),
        inference_pb2.InferRequest(image=IMAGE, expected_revision=HOSTILE),
        inference_pb2.InferRequest(image=HOSTILE.encode()),
    ):
        with suppress(grpc.RpcError):
            stub.Infer(request, metadata=metadata)
    for values in ("Bearer \x7f", "Bearer x" * 500, "Basic e"):
        with suppress(grpc.RpcError):
            stub.Infer(inference_pb2.InferRequest(image=IMAGE), metadata=[("authorization", values)])
    parents = [*metadata, ("traceparent", "00-" + "x" * 5000)]
    stub.GetServerInfo(server_info_pb2.GetServerInfoRequest(), metadata=parents)


def send_hostile_http(url: str, headers: dict[str, str]) -> None:
    name = "%0A%1b%5B2J%E2%80%AE"
    for path in (f"/v1/references/{name}:infer", f"/{name}", f"/v1/references/{name}", f"/v2/models/{name}/infer"):
        requests.post(f"{url}{path}", files={"image": (HOSTILE, IMAGE)}, headers=headers, timeout=30)
    requests.post(f"{url}/infer", files={"image": (HOSTILE, IMAGE)}, headers=headers, timeout=30)
    requests.get(f"{url}/health", headers={"host": "evil\x7f", "origin": "http://evil.example"}, timeout=30)
