"""An HTTP relay in front of a server of objects, which breaks the next requests in the ways that networks do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Break = Literal["", "slow_down", "internal_error", "reset", "lost_answer", "half_answer", "hang"]
_STATUSES = {"slow_down": (503, "SlowDown"), "internal_error": (500, "InternalError")}


class FaultyHttp:
    """Passes requests on. Those that `breaks` names, in their order, are broken; "" is none."""

    def __init__(self, target_port: int) -> None:
        self.breaks: deque[Break] = deque()
        self.requests: list[tuple[str, str]] = []  # method and path
        self.ranges: list[str] = []  # that were asked for
        self.ended = threading.Event()
        relay, target = self, target_port

        class Handler(_Handler):
            faulty, target_port = relay, target

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: FaultyHttp
    target_port: int

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.faulty.requests.append((self.command, self.path))
        self.faulty.ranges += [self.headers["Range"]] if "Range" in self.headers else []
        how = self.faulty.breaks.popleft() if self.faulty.breaks else ""
        if how == "hang":
            self.faulty.ended.wait()
            self.close_connection = True
        elif how == "reset":
            self._reset()
        elif how in _STATUSES:
            status, code = _STATUSES[how]
            self._answer(status, {}, f"<Error><Code>{code}</Code></Error>".encode())
        else:
            self._pass_on(body, how)

    def _pass_on(self, body: bytes, how: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.target_port)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if how == "lost_answer":
            self._reset()
        else:
            self._answer(answer.status, dict(answer.getheaders()), data, half=how == "half_answer")

    def _answer(self, status: int, headers: dict[str, str], data: bytes, *, half: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
        if status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        self.close_connection = half

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - names of the library

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def faulty_http(target_port: int) -> Iterator[FaultyHttp]:
    """A relay in front of the server at this port."""
    relay = FaultyHttp(target_port)
    thread = threading.Thread(target=relay.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.ended.set()
        relay.server.shutdown()
        relay.server.server_close()
        thread.join()
