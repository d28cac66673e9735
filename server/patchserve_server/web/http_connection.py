"""A connection of HTTP/1.1: uvicorn's, with limits on what a client may send and how long it may take.

uvicorn has no limit on the time and the size of headers, reads a body to its end though nobody wants it, queues any
number of pipelined requests, and does not tell a handler that its caller has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from patchserve_server.web.answering import Answering
from patchserve_server.web.connections import ConnectionPlace
from patchserve_server.web.peers import Peer, certificate_name, set_peer
from patchserve_server.web.refusals import HEADERS_TOO_LARGE, MALFORMED, MAX_HEADER_BYTES, Refusal
from patchserve_server.web.shared import SILENT, Shared
from patchserve_server.web.websocket_connection import WebSocketConnection

HEADERS_TIMEOUT_S: Final = 20.0  # as gRPC waits for the start of HTTP/2
LINGER_S: Final = 2.0  # how long a client may go on sending what nobody wants, so that it reads the response
_BYTES_OF_A_HEADER: Final = 32  # that count besides its text
_MAX_PIPELINED: Final = 8
_TINY_CHUNK_BYTES: Final = 64  # each costs as much as one of 100 KB
_MAX_TINY_CHUNKS: Final = 4096  # of a body
_CLOSE: Final = (b"connection", b"close")


class HttpConnection(HttpToolsProtocol):
    """One connection.

    Args:
        shared: what all connections share.
        place: of this one.
    """

    def __init__(self, shared: Shared, place: ConnectionPlace) -> None:
        super().__init__(shared.config, shared.state, {}, asyncio.get_running_loop())
        self.logger = SILENT
        self.ws_protocol_class = self._upgraded  # type: ignore[assignment] # uvicorn calls it as a class
        self._shared = shared
        self._place = place
        self._answering = Answering(self.app, shared.write_timeout_s)
        self._task: asyncio.Task[None] | None = None  # answers the request
        self._timer: asyncio.TimerHandle | None = None  # ends the connection
        self._opened_at_s = self.loop.time()
        self._awaits_headers = True
        self._bytes_without_body = 0  # received since there was a part of a body
        self._tiny_chunks = 0  # of the body
        self._discards = False  # what the client still sends

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        # So that uvicorn's `drain` returns when the system has taken everything. 0 would stop TLS for ever.
        transport.set_write_buffer_limits(high=1, low=0)
        name = certificate_name(transport.get_extra_info("peercert"))
        self._peer = Peer(self._place.address, name, transport.abort)
        self._end_after(HEADERS_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep_open()
        self._place.close()
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._discards:
            return
        if self._awaits_headers and self._timer is None:  # the first bytes after an idle time
            self._end_after(HEADERS_TIMEOUT_S)
        self._bytes_without_body += len(data)
        super().data_received(data)
        # The parser keeps headers, and trailers after a body, until they are complete.
        if self._bytes_without_body > MAX_HEADER_BYTES and not self._discards:
            self._refuse(HEADERS_TOO_LARGE)

    def timeout_keep_alive_handler(self) -> None:
        """Ends a connection on which nothing has come for a while."""
        self._end()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - as uvicorn's
        """Answers what cannot be parsed."""
        if not self._discards:  # else it was refused
            self._refuse(MALFORMED)

    def _refuse(self, refusal: Refusal) -> None:
        """Answers what the client sends with an error, and closes the connection."""
        cycle, self._discards = self.cycle, True
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            # An answer to this one would be taken for that of the request before it, which is in work. It is the last.
            self.pipeline.clear()
            self.cycle = self._in_work
            self.cycle.keep_alive = False
            return
        client, error = self._peer.client, refusal.error
        self._shared.entrance.failures.add(error.reason, client, f"HTTP request refused: {error.message}")
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(refusal.response)
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self._linger()

    def _linger(self) -> None:
        """Closes the connection, but reads on for a while: else the system drops a response that is not yet read."""
        self._discards = True
        self.flow.resume_reading()
        self._place.set_idle(is_idle=True)
        if self.transport.can_write_eof():
            with suppress(OSError):  # the client has gone
                self.transport.write_eof()
        self._end_after(LINGER_S)

    def _end_after(self, delay_s: float) -> None:
        self._keep_open()
        self._timer = self.loop.call_later(delay_s, self._end)

    def _end(self) -> None:
        self._keep_open()
        self.transport.close()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)  # if the client does not read

    def _keep_open(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Its requests

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._awaits_headers:  # else it is a trailer, and the headers are in use
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_headers()
        self._keep_open()
        self._awaits_headers, self._bytes_without_body, self._tiny_chunks = False, 0, 0
        self._place.set_idle(is_idle=False)
        self.server_state.default_headers = self._shared.default_headers()
        set_peer(self.scope, self._peer)
        super().on_headers_complete()
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        # After an upgrade that uvicorn does not know, the parser expects another protocol.
        if self.parser.should_upgrade() or not self._shared.entrance.readiness.is_serving or self._is_old():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._bytes_without_body = 0
        self._tiny_chunks += len(body) < _TINY_CHUNK_BYTES
        if self._tiny_chunks > _MAX_TINY_CHUNKS:
            self._refuse(MALFORMED)
            raise HttpParserError  # stops the parser
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._awaits_headers, self._bytes_without_body = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._discards and self.cycle.keep_alive:
            self._linger()
            return
        super().on_response_complete()
        if self.transport.is_closing():
            self._end()
        elif self.cycle.response_complete:
            self._place.set_idle(is_idle=True)

    def _check_headers(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + _BYTES_OF_A_HEADER for name, value in self.headers)
        if size > MAX_HEADER_BYTES:
            self._refuse(HEADERS_TOO_LARGE)
        elif len(self.pipeline) >= _MAX_PIPELINED or not _has_one_host(self.headers, self.parser.get_http_version()):
            self._refuse(MALFORMED)
        if self._discards:
            raise HttpParserError  # stops the parser

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401, ARG002 - ours
        async def send(message: Any) -> None:  # noqa: ANN401 - uvicorn has types of its own for ASGI
            is_unwanted = message["type"] == "http.response.start" and cycle.more_body
            await cycle.send(_with_close(message) if is_unwanted else message)
            if is_unwanted:  # uvicorn would close the connection at the end of the response; `_linger` does
                cycle.keep_alive = self._discards = True

        async def answer(scope: Any, receive: Any, _: Any) -> None:  # noqa: ANN401
            await self._answering(scope, receive, send)

        self._in_work = cycle
        self._task = self.loop.create_task(cycle.run_asgi(answer))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def _is_old(self) -> bool:
        max_age_s = self._shared.max_age_s
        return bool(max_age_s) and self.loop.time() - self._opened_at_s >= max_age_s

    def _upgraded(self, **_: Any) -> WebSocketConnection:  # noqa: ANN401 - uvicorn's arguments
        return WebSocketConnection(self._shared, self._place, self._peer)


def _has_one_host(headers: Sequence[tuple[bytes, bytes]], version: str) -> bool:
    """RFC 9112, 3.2: a request with none or several may be meant for somebody else."""
    count = sum(name == b"host" for name, _ in headers)
    return count == 1 or (count == 0 and version == "1.0")


def _with_close(message: Any) -> Any:  # noqa: ANN401
    headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
    return {**message, "headers": [*headers, _CLOSE]}
