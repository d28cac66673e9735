"""Receivers of webhooks: an HTTP server that is told how to answer."""

from __future__ import annotations

import ssl
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Posted:
    """A request that was received."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class HookServer:
    """Answers with `answers` first, then with 204."""

    url: str = ""
    answers: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    posted: list[Posted] = field(default_factory=list)
    answering: threading.Event = field(default_factory=threading.Event)  # cleared: nothing is answered
    connections: int = 0
    closes: bool = False  # each connection after its answer, without saying so


@contextmanager
def hook_server(certificate: tuple[Path, Path] | None = None, port: int = 0) -> Iterator[HookServer]:
    """An HTTP server on this machine; with a certificate, HTTPS."""
    hook = HookServer()
    hook.answering.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            hook.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.answering.wait(60)
            hook.posted.append(Posted(self.path, dict(self.headers), body))
            status, headers = hook.answers.popleft() if hook.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", "0")
            self.end_headers()
            if hook.closes:
                self.close_connection = True

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    hook.url = f"{scheme}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hook
    finally:
        hook.answering.set()
        server.shutdown()
        server.server_close()
        thread.join()
