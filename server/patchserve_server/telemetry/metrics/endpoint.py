"""The port where Prometheus scrapes: threads of its own, which neither wait for the event loop nor hold it up."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import MetricsHandler

from patchserve_server.access import Authenticator
from patchserve_server.access.addresses import listening_address
from patchserve_server.access.binding import Purpose, bind
from patchserve_server.access.tls import TlsContexts
from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import UnauthenticatedError

PATH: Final = "/metrics"
PURPOSE: Final = Purpose("metrics", "--metrics-host", "--metrics-port")
_CONNECTIONS: Final = 8  # of more, the oldest is closed: so nobody can take all of them for long
_TIMEOUT_S: Final = 5.0  # for the next bytes of a request, or for the system to take the next ones of an answer
_POLL_S: Final = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MetricsListening:
    """Where the port is, and who may read it.

    Args:
        host, port: to listen on; 0 picks a free port.
        identity: of the server; None: no TLS.
        authenticator: None: no token is needed; else any valid one.
        prepare_thread: called at the start of the thread that starts all others.
    """

    host: str
    port: int
    identity: Callable[[], TlsIdentity] | None = None
    authenticator: Authenticator | None = None
    prepare_thread: Callable[[], None] = lambda: None


class MetricsEndpoint:
    """Answers GET /metrics from `open` until `close`.

    Args:
        listening: where, and to whom.
        registry: what is scraped.
    """

    def __init__(self, listening: MetricsListening, registry: CollectorRegistry) -> None:
        self._listening = listening
        self._registry = registry
        self._servers: list[_Server] = []

    def open(self) -> str:
        """Binds the port; returns the URL.

        Raises:
            StartupError: it cannot be bound.
        """
        listening = self._listening
        contexts = None if listening.identity is None else TlsContexts(listening.identity)
        for bound in bind(listening.host, listening.port, purpose=PURPOSE):
            server = _Server(bound, self._registry, listening.authenticator, contexts)
            self._servers.append(server)
            threading.Thread(target=self._serve, args=(server,), name="metrics", daemon=True).start()
        scheme, port = "http" if contexts is None else "https", self._servers[0].server_port
        return f"{scheme}://{listening_address(listening.host, port)}{PATH}"

    def _serve(self, server: _Server) -> None:
        self._listening.prepare_thread()
        server.serve_forever(_POLL_S)

    def close(self) -> None:
        """Ends it. Blocks for a moment."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        bound: socket.socket,
        registry: CollectorRegistry,
        authenticator: Authenticator | None,
        contexts: TlsContexts | None,
    ) -> None:
        super().__init__(bound.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()  # the one that it has made itself
        self.socket = bound
        self.server_port = bound.getsockname()[1]
        self.registry = registry
        self.authenticator = authenticator
        self._contexts = contexts
        self._lock = threading.Lock()
        self._open: dict[Any, socket.socket] = {}  # by the address of the peer, the oldest first

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in socketserver
        request.settimeout(_TIMEOUT_S)
        with self._lock:
            self._open[client_address] = request
            if len(self._open) > _CONNECTIONS:
                oldest = next(iter(self._open))
                with suppress(OSError):
                    self._open.pop(oldest).shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        try:
            super().process_request_thread(self._with_tls(request, client_address), client_address)
        except OSError as error:  # of the handshake
            _log.debug("%s: %s", client_address, error)
            self.shutdown_request(request)
        finally:
            with self._lock:
                self._open.pop(client_address, None)

    def _with_tls(self, request: socket.socket, client_address: Any) -> socket.socket:  # noqa: ANN401
        if self._contexts is None:
            return request
        wrapped: ssl.SSLSocket = self._contexts.current().wrap_socket(
            request, server_side=True, do_handshake_on_connect=False
        )
        with self._lock:
            if client_address in self._open:
                self._open[client_address] = wrapped
        try:
            wrapped.do_handshake()
        except OSError:
            wrapped.close()
            raise
        return wrapped

    def handle_error(self, _request: Any, client_address: Any) -> None:  # noqa: ANN401
        _log.debug("A scrape by %s has failed", client_address, exc_info=True)


class _Handler(MetricsHandler):
    server: _Server
    server_version = "patchserve"
    sys_version = ""

    @property
    def registry(self) -> CollectorRegistry:  # type: ignore[override] # of the server, not of the class
        return self.server.registry

    def do_GET(self) -> None:  # noqa: N802 - the method of HTTP
        if _path_of(self.path) != PATH:
            self._refuse(HTTPStatus.NOT_FOUND, f"Metrics are at {PATH}.")
            return
        if (authenticator := self.server.authenticator) is not None:
            try:
                authenticator.authenticate(self.headers.get("authorization", ""))
            except UnauthenticatedError as error:
                self._refuse(HTTPStatus.UNAUTHORIZED, error.message, {"www-authenticate": "Bearer"})
                return
        try:
            super().do_GET()
        except OSError:  # the other side has gone
            raise
        except Exception:  # noqa: BLE001 - a bug, which happens before anything is sent
            _log.exception("The metrics cannot be read")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "The metrics cannot be read; the server's log has details.")

    def _refuse(self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None) -> None:
        body = f"{message}\n".encode()
        self.send_response(status)
        for name, value in {"content-type": "text/plain", "content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as in http.server
        _log.debug(format, *args)


def _path_of(target: str) -> str:
    """The path of a request; empty if its target is no URL."""
    try:
        return urlsplit(target).path
    except ValueError:
        return ""
