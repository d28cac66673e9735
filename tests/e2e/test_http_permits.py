"""Whatever callers do over HTTP, in any order and on any route: when they are gone, nothing is held for them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import ClassVar

import pytest
from e2e.counted import IMAGES, SMALL, CountedServer
from fakes.raw_http import RawConnection, form
from fakes.waiting import wait_until
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

SOCKET_KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
ROUTES = {
    "infer": ("POST", "/infer"),
    "infer json": ("POST", "/infer_json"),
    "load": ("POST", "/load_reference"),
    "contract": ("GET", "/v1/references"),
    "info": ("GET", "/"),
    "session": ("POST", "/session"),
    "events": ("GET", "/watch/events"),
    "stream": ("GET", "/v1/references/default:inferStream"),
    "probe": ("GET", "/v2/health/ready"),
    "nothing": ("POST", "/no/such/path"),
}
LENGTHS = ("right", "chunked", "too long", "huge", "expects")


class Caller:
    """A request that is sent piece by piece."""

    def __init__(self, url: str, route: str, image: bytes, length: str, timeout: str) -> None:
        self.connection = RawConnection(url, receive_buffer=2048)
        method, path = ROUTES[route]
        kind, body = form(image, reference_id="other" if route == "load" else "default")
        headers = [kind] if method == "POST" else []
        if route == "stream":
            headers += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", SOCKET_KEY]
        if timeout:
            headers.append(f"grpc-timeout: {timeout}")
        if method == "GET":
            body = b""
        elif length == "chunked":
            headers.append("Transfer-Encoding: chunked")
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        else:
            size = {"too long": len(body) + 100, "huge": 2**40}.get(length, len(body))
            headers.append(f"Content-Length: {size}")
            if length == "expects":
                headers.append("Expect: 100-continue")
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()
        self._rest = head + body

    def send(self, share: float = 1.0) -> None:
        """Sends this part of the rest."""
        count = max(1, round(len(self._rest) * share))
        part, self._rest = self._rest[:count], self._rest[count:]
        with contextlib.suppress(ConnectionError):
            self.connection.send(part)

    def send_garbage(self) -> None:
        with contextlib.suppress(ConnectionError):
            self.connection.send(b"\xff\xff\r\n\r\n")

    def read(self) -> None:
        """Reads what there is."""
        self.connection.socket.settimeout(0.01)
        with contextlib.suppress(OSError):
            self.connection.socket.recv(2**16)
        self.connection.socket.settimeout(60)

    def leave(self) -> None:
        self.connection.close()


class Callers(RuleBasedStateMachine):
    """Callers of all routes, which send, stall, leave, send garbage, read nothing or too slowly."""

    server: ClassVar[CountedServer]

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[Caller] = []

    @rule(
        route=st.sampled_from(sorted(ROUTES)),
        image=st.sampled_from(sorted(IMAGES)),
        length=st.sampled_from(LENGTHS),
        timeout=st.sampled_from(["", "", "2m", "50m"]),
        share=st.sampled_from([0.0, 0.5, 1.0, 1.0]),
    )
    def call(self, route: str, image: str, length: str, timeout: str, share: float) -> None:
        self.callers.append(Caller(self.server.http_url, route, IMAGES[image], length, timeout))
        if share:
            self.callers[-1].send(share)

    @precondition(lambda self: self.callers)
    @rule(data=st.data(), share=st.sampled_from([0.3, 1.0]))
    def send(self, data: st.DataObject, share: float) -> None:
        data.draw(st.sampled_from(self.callers)).send(share)

    @precondition(lambda self: self.callers)
    @rule(data=st.data(), act=st.sampled_from([Caller.send_garbage, Caller.read]))
    def act(self, data: st.DataObject, act: object) -> None:
        act(data.draw(st.sampled_from(self.callers)))  # type: ignore[operator]

    @precondition(lambda self: self.callers)
    @rule()
    def leave(self) -> None:
        self.callers.pop(0).leave()

    @rule(is_open=st.booleans())
    def let_the_detector_work(self, is_open: bool) -> None:
        (self.server.detector.gate.set if is_open else self.server.detector.gate.clear)()

    def teardown(self) -> None:
        self.server.detector.gate.set()
        for position, caller in enumerate(self.callers):
            if position % 2:
                caller.send()
            caller.leave()
        self.server.wait_until_nothing_is_held()
        wait_until(lambda: self.server.http_connections() == 0)


@pytest.fixture(scope="module")
def server() -> Iterator[CountedServer]:
    with ExitStack() as stack:
        counted = CountedServer(stack)
        counted.load_default()
        yield counted


def test_nothing_is_held_when_all_callers_are_gone(server: CountedServer) -> None:
    Callers.server = server
    machine = Callers.TestCase
    machine.settings = settings(
        max_examples=40,
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),  # a failure is found by waiting, so making it smaller would take an hour
    )
    machine().runTest()


def test_nothing_is_held_after_a_drain() -> None:
    """Of calls that wait for a body, for the detector and for a caller that does not read."""
    stop = threading.Event()
    with ExitStack() as stack:
        server = CountedServer(stack, stop)
        server.load_default()
        server.detector.gate.clear()
        callers = [
            Caller(server.http_url, route, image, length, "")
            for route in sorted(ROUTES)
            for image, length in ((SMALL, "right"), (IMAGES["unread"], "too long"))
        ]
        for caller in callers:
            caller.send()
        wait_until(lambda: server.held()[0].count > 0)
        stop.set()
        server.detector.gate.set()
        server.wait_until_nothing_is_held()
        for caller in callers:
            caller.leave()
