"""Flow control of WebSockets, and what ends a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakes.waiting import wait_until
from fakes.web_server import serving
from websockets.sync.client import connect

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


class App:
    """Accepts a WebSocket, then takes a message whenever the test lets it."""

    def __init__(self) -> None:
        self.turns = threading.Semaphore(0)
        self.received: list[Any] = []
        self.answer: Callable[[Any], Any] = lambda message: None
        self.left: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            while not self.turns.acquire(blocking=False):  # noqa: ASYNC110 - the test is another thread
                await asyncio.sleep(0.001)
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.left.append(message["code"])
                return
            content = message.get("bytes") if message.get("bytes") is not None else message["text"]
            self.received.append(content)
            if (answer := self.answer(content)) is not None:
                await send({"type": "websocket.send", "bytes": answer})

    def let(self, count: int = 1) -> None:
        for _ in range(count):
            self.turns.release()


@pytest.fixture
def app() -> App:
    return App()


@contextmanager
def open_socket(port: int, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A WebSocket of which the test writes every byte."""
    with socket.socket() as raw:
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.connect(("127.0.0.1", port))
        raw.settimeout(30)
        raw.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += raw.recv(1)
        assert answer.startswith(b"HTTP/1.1 101")
        yield raw


def frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    head = bytes([opcode | (0x80 if fin else 0)])
    if len(data) < 126:
        size = bytes([0x80 | len(data)])
    elif len(data) < 2**16:
        size = struct.pack("!BH", 0x80 | 126, len(data))
    else:
        size = struct.pack("!BQ", 0x80 | 127, len(data))
    return head + size + b"\0\0\0\0" + data  # a mask of zeros leaves the data as they are


def closing_code(raw: socket.socket) -> int:
    """The code with which the server closes; other frames before it are skipped."""
    answer = b""
    while part := raw.recv(65536):
        answer += part
    while answer:
        length, start = answer[1], 2
        if length == 126:
            length, start = struct.unpack("!H", answer[2:4])[0], 4
        if answer[0] & 15 == CLOSE:
            return int(struct.unpack("!H", answer[start : start + 2])[0])
        answer = answer[start + length :]
    return 0


def send_until_blocked(raw: socket.socket, data: bytes, most: int) -> int:
    """Sends until the server takes no more, or ends the connection; returns how many bytes it took."""
    raw.settimeout(1)
    sent = 0
    try:
        while sent < most:
            sent += raw.send(data)
    except TimeoutError:
        pass
    finally:
        raw.settimeout(30)
    return sent


def test_messages_arrive_whole_and_in_order(app: App) -> None:
    app.answer = lambda message: message if isinstance(message, bytes) else message.encode()
    app.let(100)
    with serving(app) as port, connect(f"ws://127.0.0.1:{port}") as client:
        messages: list[str | bytes] = [b"", b"x", "text", b"y" * 300_000, b"z" * 2**20]
        for message in messages:
            client.send(message)
        assert [client.recv() for _ in messages] == [b"", b"x", b"text", b"y" * 300_000, b"z" * 2**20]
        client.send([b"a" * 10, b"b" * 10, b"c"])
        assert client.recv() == b"a" * 10 + b"b" * 10 + b"c"
    assert client.close_code == 1000


@pytest.mark.parametrize("count", [1, 2], ids=["whole", "in fragments"])
def test_only_the_application_keeps_a_message(count: int) -> None:
    references: list[int] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        data = (await receive())["bytes"]
        references.append(sys.getrefcount(data))
        await receive()

    with serving(app) as port, connect(f"ws://127.0.0.1:{port}") as client:
        client.send([b"x" * 100_000] * count if count > 1 else b"x" * 100_000)
        wait_until(lambda: bool(references))
    assert references == [2], "of `data`, and of the call"


@pytest.mark.parametrize("size", [0, 1000, 500_000])
def test_a_sender_is_held_back_while_the_application_asks_for_nothing(app: App, size: int) -> None:
    with serving(app) as port, open_socket(port) as raw:
        data = frame(BINARY, b"i" * size) * (1 if size else 1000)
        assert send_until_blocked(raw, data, 64 * 2**20) < 16 * 2**20, "the buffers of both sockets"
        assert app.received == []
        app.let(3)
        wait_until(lambda: app.received == [b"i" * size] * 3)


def test_what_was_read_before_a_pause_is_not_lost(app: App) -> None:
    with serving(app) as port, open_socket(port) as raw:
        raw.sendall(b"".join(frame(BINARY, str(number).encode()) for number in range(5000)))
        app.let(5000)
        wait_until(lambda: len(app.received) == 5000)
        assert app.received == [str(number).encode() for number in range(5000)]


def test_a_message_that_is_too_large_ends_the_connection_before_it_is_received(app: App) -> None:
    app.let()
    with serving(app, max_message_bytes=1000) as port, open_socket(port) as raw:
        raw.sendall(frame(BINARY, b"i" * 1000))
        wait_until(lambda: len(app.received) == 1)
        app.let()
        raw.sendall(bytes([0x82, 0xFF]) + struct.pack("!Q", 2**40))  # only the head of a terabyte
        assert closing_code(raw) == 1009
    wait_until(lambda: app.left == [1009])


def test_fragments_that_are_too_large_together_end_the_connection(app: App) -> None:
    app.let()
    with serving(app, max_message_bytes=1000) as port, open_socket(port) as raw:
        raw.sendall(frame(BINARY, b"i" * 600, fin=False) + frame(CONT, b"i" * 600))
        assert closing_code(raw) == 1009


@pytest.mark.parametrize("size", [0, 1, 100])
def test_very_many_tiny_fragments_end_the_connection(app: App, size: int) -> None:
    app.let()
    with serving(app) as port, open_socket(port) as raw:
        raw.sendall(frame(BINARY, fin=False) + frame(CONT, b"i" * size, fin=False) * 600)
        assert closing_code(raw) == 1008


def test_a_message_in_fragments_of_usual_size_is_received(app: App) -> None:
    app.let()
    with serving(app) as port, open_socket(port) as raw:
        raw.sendall(frame(BINARY, fin=False) + frame(CONT, b"i" * 1024, fin=False) * 1000 + frame(CONT))
        wait_until(lambda: app.received == [b"i" * 1_024_000])


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_a_flood_of_control_frames_ends_the_connection(app: App, opcode: int) -> None:
    app.let()
    with serving(app) as port, open_socket(port) as raw:
        raw.sendall(frame(opcode, b"p" * 100) * 1000)
        assert closing_code(raw) == 1008


def test_pings_at_a_usual_rate_are_answered(app: App) -> None:
    app.let()
    with serving(app) as port, connect(f"ws://127.0.0.1:{port}") as client:
        for _ in range(50):
            assert client.ping().wait(30)


def test_the_application_is_told_why_the_caller_left(app: App) -> None:
    app.let()
    with serving(app) as port, connect(f"ws://127.0.0.1:{port}") as client:
        client.close(4001)
        wait_until(lambda: app.left == [4001])


def test_a_caller_that_vanishes_while_nothing_is_read_is_noticed_when_it_is_written_to(app: App) -> None:
    app.answer = lambda message: b"r" * 100_000
    with serving(app) as port:
        with open_socket(port) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
            raw.sendall(frame(BINARY, b"1"))
        app.let(5)
        wait_until(lambda: len(app.left) == 1)


def test_garbage_is_a_protocol_error(app: App) -> None:
    app.let()
    with serving(app) as port, open_socket(port) as raw:
        raw.sendall(b"\xff" * 100)
        assert closing_code(raw) == 1002


def test_text_that_is_not_utf_8_ends_the_connection(app: App) -> None:
    app.let()
    with serving(app) as port, open_socket(port) as raw:
        raw.sendall(frame(TEXT, b"\xff\xfe"))
        assert closing_code(raw) == 1007


def test_an_answer_waits_for_a_caller_that_does_not_read(app: App) -> None:
    app.answer = lambda message: b"r" * 2**20
    app.let(40)
    with serving(app) as port, open_socket(port, receive_buffer=4096) as raw:
        raw.sendall(frame(BINARY, b"1") * 40)
        wait_until(lambda: len(app.received) >= 2)
        assert send_until_blocked(raw, frame(PING, b"p" * 100), 2**26) < 16 * 2**20, "pings are not read either"
        assert len(app.received) < 10


def test_compression_is_not_offered(app: App) -> None:
    with serving(app) as port, connect(f"ws://127.0.0.1:{port}", compression="deflate") as client:
        assert client.protocol.extensions == []
        app.let()


def test_a_caller_that_answers_no_ping_is_ended(app: App) -> None:
    app.let()
    with serving(app, ping_s=0.2) as port, open_socket(port) as raw:
        assert closing_code(raw) == 1011


def test_a_caller_that_is_held_back_need_not_answer_pings(app: App) -> None:
    """Its answers wait behind what it sends."""
    with serving(app, ping_s=0.1) as port, open_socket(port) as raw:
        send_until_blocked(raw, frame(BINARY, b"i" * 100_000), 2**26)
        app.let(5)
        wait_until(lambda: len(app.received) == 5)


def test_a_caller_whose_message_is_still_coming_need_not_answer_pings(app: App) -> None:
    app.let()
    with serving(app, ping_s=0.2) as port, open_socket(port) as raw:
        message = frame(BINARY, b"i" * 100)
        for start in range(0, len(message), 4):
            raw.sendall(message[start : start + 4])
            time.sleep(0.05)
        wait_until(lambda: app.received == [b"i" * 100])
