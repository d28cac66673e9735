"""InferStream over a WebSocket: what differs from gRPC. What is the same: test_stream.py."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from e2e.harness import connect
from e2e.in_process import running_server
from e2e.socket_stub import SocketStream, open_stream, parsed
from fakes.certificates import Authority
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.images import encoded, noise
from fakes.waiting import wait_until
from google.rpc import code_pb2, status_pb2
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as open_socket

from patchserve.v1 import reference_pb2, service_pb2_grpc, stream_pb2
from patchserve_server.access.tokens import new_token
from patchserve_server.bootstrap import composition
from patchserve_server.domain.callers import Scope
from patchserve_server.serving import reception
from patchserve_server.serving.admission import NOTHING
from patchserve_server.serving.application import Application
from patchserve_server.web import server as web_server
from patchserve_server.web.errors import reason_of

IMAGE = gray_png(100)
END = '{"end": true}'


@dataclass(frozen=True)
class Server:
    """A server with the reference `default`."""

    url: str
    stub: Any
    detector: FakeDetector
    application: Application
    stop: threading.Event

    def open(self, query: str = "", reference_id: str = "default", **options: Any) -> Any:
        return open_stream(self.url, reference_id, query, **options)

    def wait_until_nothing_is_held(self) -> None:
        at = self.application
        wait_until(lambda: [admission.held for admission in (at.calls, at.images)] == [NOTHING] * 2)


@contextmanager
def serving(**settings: Any) -> Iterator[Server]:
    detector, stop, applications = FakeDetector(), threading.Event(), []
    create = composition.create_application

    async def create_and_keep(*arguments: Any) -> Application:
        applications.append(await create(*arguments))
        return applications[-1]

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(composition, "create_application", create_and_keep)
            server = stack.enter_context(running_server(detector=detector, stop=stop, **settings))
        stack.callback(detector.gate.set)
        stub: service_pb2_grpc.PatchCoreServiceStub = stack.enter_context(connect(server.address))
        if "auth_tokens" not in settings:
            stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE]))
        yield Server(server.http_url, stub, detector, applications[0], stop)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


def next_result(stream: SocketStream) -> stream_pb2.FrameResult:
    message = parsed(stream.recv(60))
    assert isinstance(message, stream_pb2.InferStreamResponse)
    return message.result


def ending(stream: SocketStream) -> tuple[status_pb2.Status, int, list[stream_pb2.FrameResult]]:
    """The status, the code of the close, and the results before them."""
    results = []
    while isinstance(message := parsed(stream.recv(60)), stream_pb2.InferStreamResponse):
        if message.HasField("result"):
            results.append(message.result)
    with pytest.raises(ConnectionClosed):
        stream.recv(60)
    assert stream.close_code is not None
    assert stream.close_reason == reason_of(message)
    return message, stream.close_code, results


def test_an_image_may_have_a_name_and_a_time(server: Server) -> None:
    with server.open("max_in_flight=2&output.overlay=true") as stream:
        first = json.loads(stream.recv(60))
        assert first["ready"]["max_in_flight"] == 2
        stream.send(IMAGE)
        stream.send('{"frame_id": "left", "capture_time": "2026-01-31T12:00:00.5Z"}')
        stream.send(IMAGE)
        stream.send("{}")
        stream.send(IMAGE)
        stream.send(END)
        unnamed, named, empty = (json.loads(stream.recv(60))["result"] for _ in range(3))
        assert (unnamed["frame_id"], unnamed["sequence"], "capture_time" in unnamed) == ("", "0", False)
        assert (named["frame_id"], named["sequence"]) == ("left", "1")
        assert named["capture_time"] == "2026-01-31T12:00:00.500Z"
        assert (empty["frame_id"], empty["sequence"]) == ("", "2")
        assert unnamed["response"]["anomaly"]["is_anomalous"] is False
        assert unnamed["response"]["overlay_png"]
        status, code, _ = ending(stream)
    assert (status, code) == (status_pb2.Status(), 1000)


@pytest.mark.parametrize(
    "messages",
    [
        ["garbage"],
        ["[]"],
        ["7"],
        ["{" * 500],
        ['{"end": false}'],
        ['{"end": true, "frame_id": "x"}'],
        ['{"frame_id": 7}'],
        ['{"frame": "x"}'],
        ['{"image": "aGVsbG8="}'],
        ['{"capture_time": "yesterday"}'],
        ['{"frame_id": "' + "x" * 3000 + '"}'],
        ['{"frame_id": "\\ud800"}'],
        ["{}", "{}"],
        ["{}", END],
    ],
)
def test_a_text_that_is_not_understood_ends_the_stream_after_the_results_of_all_frames(
    server: Server, messages: list[str]
) -> None:
    with server.open() as stream:
        for message in [IMAGE, *messages]:
            stream.send(message)
        status, code, results = ending(stream)
    assert (code, reason_of(status), status.code) == (1008, "STREAM_PROTOCOL", code_pb2.INVALID_ARGUMENT)
    assert [result.WhichOneof("outcome") for result in results] == ["response"]
    server.wait_until_nothing_is_held()


@pytest.mark.parametrize("image", [b"", b"garbage", IMAGE[:60]])
def test_an_image_that_cannot_be_used_is_an_error_of_its_frame(server: Server, image: bytes) -> None:
    with server.open() as stream:
        for message in (image, IMAGE, END):
            stream.send(message)
        status, _, results = ending(stream)
    assert [result.WhichOneof("outcome") for result in results] == ["error", "response"]
    assert not status.code


@pytest.mark.parametrize(
    ("query", "reference_id", "reason"),
    [
        ("", "nobody", "REFERENCE_NOT_FOUND"),
        ("", "a/b", "INVALID_FIELD"),
        ("max_in_flight=1000", "default", "INVALID_FIELD"),
        ("max_in_flight=two", "default", "INVALID_FIELD"),
        ("output.overly=true", "default", "INVALID_FIELD"),
        ("reference_id=other", "default", "INVALID_FIELD"),
        ("frame_timeout=0s", "default", "INVALID_FIELD"),
        (f"expected_revision={'0' * 64}", "default", "REVISION_MISMATCH"),
    ],
)
def test_a_stream_that_cannot_open_says_why(server: Server, query: str, reference_id: str, reason: str) -> None:
    with server.open(query, reference_id) as stream:
        status, code, results = ending(stream)
    assert (reason_of(status), code, results) == (reason, 1008, [])


def test_other_paths_have_no_stream_and_this_one_no_other_answer(server: Server) -> None:
    with pytest.raises(InvalidStatus) as caught, open_socket(server.url.replace("http", "ws") + "/v1/streams"):
        pass
    assert caught.value.response.status_code == 404
    answer = requests.get(f"{server.url}/v1/references/default:inferStream", timeout=60)
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "ws://" in answer.json()["message"]


def test_a_page_of_another_site_opens_no_stream(server: Server) -> None:
    with server.open(origin=server.url) as stream:
        stream.send(END)
        assert ending(stream)[1] == 1000
    with pytest.raises(InvalidStatus) as caught, server.open(origin="https://other.example"):
        pass
    assert caught.value.response.status_code == 403


def test_a_refusal_is_a_message_too_because_a_page_sees_no_other(server: Server) -> None:
    with serving(max_calls=2, client_share=0.5) as small, small.open() as first:
        assert json.loads(first.recv(60))["ready"]
        with small.open() as second:
            status, code, _ = ending(second)
        assert (reason_of(status), code) == ("QUEUE_FULL", 1013)
        first.send(END)
        assert ending(first)[1] == 1000


def test_a_drain_is_told_and_answers_what_was_accepted() -> None:
    with serving(drain_grace_s=60.0) as server, server.open() as stream, server.open() as idle:
        server.detector.gate.clear()
        stream.recv(60), idle.recv(60)
        stream.send(IMAGE)
        wait_until(lambda: bool(server.detector.batches))
        server.stop.set()
        for each in (stream, idle):
            assert json.loads(each.recv(60))["notice"]["kind"] == "NOTICE_KIND_DRAINING"
        server.detector.gate.set()
        for each, outcomes in ((stream, ["response"]), (idle, [])):
            status, code, results = ending(each)
            assert (reason_of(status), code) == ("DRAINING", 1001)
            assert [result.WhichOneof("outcome") for result in results] == outcomes


def answer_to(stream: SocketStream, image: bytes) -> stream_pb2.InferStreamResponse | status_pb2.Status:
    stream.send(image)
    return parsed(stream.recv(60))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_comes_in_a_header_or_in_the_cookie_and_is_checked_again(tmp_path: Path) -> None:
    infer, infer_line = new_token("camera", [Scope.INFER])
    manage, manage_line = new_token("boss", [Scope.MANAGE])
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{infer_line}\n{manage_line}\n")
    with serving(auth_tokens=tokens) as server:
        load_headers = [("authorization", f"Bearer {manage}")]
        server.stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE]), metadata=load_headers)
        for headers, reason in (
            ({}, "NO_CREDENTIALS"),
            (bearer("x"), "INVALID_CREDENTIALS"),
            (bearer(manage), "SCOPE_MISSING"),
        ):
            with server.open(additional_headers=headers) as stream:
                status, code, _ = ending(stream)
            assert (reason_of(status), code) == (reason, 1008)
        cookie = requests.post(f"{server.url}/session", json={"token": infer}, timeout=60).headers["set-cookie"]
        for headers in (bearer(infer), {"cookie": cookie.partition(";")[0]}):
            with server.open(additional_headers=headers) as stream:
                stream.send(IMAGE)
                stream.send(END)
                assert len(ending(stream)[2]) == 1
        with server.open(additional_headers=bearer(infer)) as stream:
            stream.recv(60)
            tokens.write_text(f"{manage_line}\n")
            while isinstance(answer := answer_to(stream, IMAGE), stream_pb2.InferStreamResponse):
                assert answer.result.HasField("response")
            assert reason_of(answer) == "INVALID_CREDENTIALS"
        server.wait_until_nothing_is_held()


def raw_stream(url: str, query: str = "", receive_buffer: int | None = None) -> socket.socket:
    """A WebSocket of which the test writes every byte, and which reads nothing by itself."""
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.connect((urlsplit(url).hostname, urlsplit(url).port))
    raw.sendall(
        f"GET /v1/references/default:inferStream?{query} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert raw.recv(12) == b"HTTP/1.1 101"
    return raw


def frame(data: bytes) -> bytes:
    return struct.pack("!BBQ", 0x82, 0x80 | 127, len(data)) + b"\0\0\0\0" + data  # masked with zeros


def test_a_caller_that_vanishes_gives_back_all_that_it_held(server: Server) -> None:
    server.detector.gate.clear()
    sockets = [raw_stream(server.url) for _ in range(4)]
    for raw in sockets:
        raw.sendall(frame(IMAGE) * 2)
    wait_until(lambda: server.application.images.held.count == 8)
    for raw in sockets[:2]:
        raw.close()
    for raw in sockets[2:]:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
        raw.close()
    server.detector.gate.set()
    server.wait_until_nothing_is_held()
    assert server.application.streams._open == set()


def test_a_caller_that_reads_no_results_is_ended() -> None:
    image = encoded(noise(300))
    with serving(stream_write_timeout_s=0.5) as server:
        raw = raw_stream(server.url, "output.overlay=true", receive_buffer=4096)
        with raw:
            sender = threading.Thread(target=send_all, args=[raw, frame(image) * 400], daemon=True)
            sender.start()
            wait_until(lambda: server.application.calls.held != NOTHING)
            server.wait_until_nothing_is_held()
            sender.join(60)
            assert not sender.is_alive(), "the connection is gone"


def send_all(raw: socket.socket, data: bytes) -> None:
    try:
        raw.sendall(data)
    except OSError:
        return


def test_a_frame_that_is_larger_than_a_message_ends_the_stream() -> None:
    with serving(max_message_mib=1) as server:
        with server.open() as stream:
            stream.send(b"x" * 2**20)
            assert json.loads(stream.recv(60))["ready"]
            assert next_result(stream).HasField("error")
            stream.send(b"x" * (2**20 + 1))
            with pytest.raises(ConnectionClosed):
                stream.recv(60)
            assert stream.close_code == 1009
        server.wait_until_nothing_is_held()


def send_most_of_a_large_message(raw: socket.socket) -> bool:
    """Sends 15 of 16 MiB; whether the server took them."""
    raw.settimeout(1)
    try:
        raw.sendall(frame(bytes(16 * 2**20))[: -(2**20)])
    except TimeoutError:
        return False
    return True


def test_a_few_large_messages_are_received_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "KEEPS_S", 1000)
    with serving(max_message_mib=16, max_pending_mib=16) as server:
        sockets = [raw_stream(server.url, receive_buffer=2**16) for _ in range(5)]
        assert sum(map(send_most_of_a_large_message, sockets)) == 2, "a third of six"
        with server.open() as stream:
            stream.send(IMAGE)  # a small one needs no place
            assert json.loads(stream.recv(60))["ready"]
            assert next_result(stream).HasField("response")
        for raw in sockets:
            raw.close()
        server.wait_until_nothing_is_held()


def test_a_large_message_that_does_not_come_leaves_its_place_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "KEEPS_S", 0.2)
    with serving(max_message_mib=16, max_pending_mib=16) as server:
        sockets = [raw_stream(server.url, receive_buffer=2**16) for _ in range(3)]
        for raw in sockets:
            send_most_of_a_large_message(raw)
        with server.open() as stream:
            assert json.loads(stream.recv(60))["ready"]
            for _ in range(3):
                stream.send(encoded(noise(600), "BMP"))  # 1 MB
                assert next_result(stream).HasField("response")
        for raw in sockets:
            raw.close()
        server.wait_until_nothing_is_held()


def test_a_large_message_is_dropped_after_the_stream_has_ended() -> None:
    with serving(max_message_mib=16) as server:
        with raw_stream(server.url) as raw:
            raw.sendall(b"\x81\x81\0\0\0\0x" + frame(bytes(16 * 2**20)))  # a text that is not understood
            raw.settimeout(60)
            answer = b""
            with suppress(ConnectionResetError):
                while part := raw.recv(65536):
                    answer += part
            assert b"STREAM_PROTOCOL" in answer
        server.wait_until_nothing_is_held()


@pytest.mark.parametrize(
    "flood",
    [
        b"\x89\x80\0\0\0\0" * 1000,  # pings
        b"\x8a\x80\0\0\0\0" * 1000,  # pongs
        b"\x02\x80\0\0\0\0" + b"\x00\x81\0\0\0\0x" * 1000,  # fragments of one byte
        b"\xff" * 1000,  # garbage
        b"\x82\xff" + b"\x7f" * 8,  # the head of a message that is far too large
    ],
)
def test_a_flood_ends_the_stream_and_gives_back_all(server: Server, flood: bytes) -> None:
    with raw_stream(server.url) as raw:
        raw.sendall(frame(IMAGE) + flood)
        raw.settimeout(60)
        with suppress(OSError):
            while raw.recv(65536):
                pass
        server.wait_until_nothing_is_held()


def test_a_caller_that_leaves_before_its_result_is_no_failure_of_the_server(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for leaving in (b"\xff" * 100, b"\x88\x80\0\0\0\0", b""):  # garbage, a close, and nothing
        server.detector.gate.clear()
        seen = len(server.detector.batches)
        with raw_stream(server.url) as raw:
            raw.sendall(frame(IMAGE) * 2)
            wait_until(lambda seen=seen: len(server.detector.batches) > seen)  # type: ignore[misc]
            raw.sendall(leaving)
            if leaving:
                with suppress(OSError):
                    while raw.recv(65536):
                        pass
                server.detector.gate.set()
                server.wait_until_nothing_is_held()
        server.detector.gate.set()
        server.wait_until_nothing_is_held()
    assert [record.getMessage() for record in caplog.records if record.exc_info or "INTERNAL" in record.message] == []


def test_very_many_tiny_frames_are_answered_one_by_one(server: Server) -> None:
    with server.open("max_in_flight=2") as stream:
        for _ in range(500):
            stream.send(b"")
        stream.send(END)
        status, _, results = ending(stream)
    assert [result.sequence for result in results] == list(range(500))
    assert {result.WhichOneof("outcome") for result in results} == {"error"}
    assert not status.code


def test_idle_streams_of_one_client_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "IDLE_AFTER_S", 0.2)
    with serving(max_idle_streams=1) as server, server.open() as first, server.open() as second:
        status, code, _ = ending(first)
        assert (reason_of(status), code) == ("IDLE", 1013)
        second.send(END)
        assert ending(second)[1] == 1000


def test_a_stream_over_tls_is_held_back_too(tmp_path: Path) -> None:
    authority = Authority()
    cert, key = authority.write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    trusting = ssl.create_default_context(cadata=authority.certificate.decode())
    image, count = encoded(noise(300), "BMP"), 100  # 270 KB
    sent = 0

    def send() -> None:
        nonlocal sent
        for _ in range(count):
            stream.send(image)
            sent += 1
        stream.send(END)

    with running_server(detector=FakeDetector(), tls_cert=cert, tls_key=key) as server:
        form = {"image": IMAGE}
        requests.post(
            f"{server.http_url}/load_reference", files=form, verify=str(tmp_path / "ca.pem"), timeout=60
        ).raise_for_status()
        with open_stream(server.http_url, "default", "max_in_flight=2&output.overlay=true", ssl=trusting) as stream:
            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            sender.join(1)
            assert sent < count, "nothing is read while nobody reads results"
            status, code, results = ending(stream)
            assert (status.code, code, len(results)) == (0, 1000, count)
