"""Where the server listens: with or without TLS, and who can reach it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc
from grpc import aio

from patchserve_server.access.addresses import is_unix_socket, listening_address, private_socket_file
from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import StartupError
from patchserve_server.rpc.reading import ReadingLimits

KEEPALIVE_TIME_S: Final = 60
KEEPALIVE_TIMEOUT_S: Final = 20
MIN_PING_INTERVAL_S: Final = 10
MAX_CONNECTION_IDLE_S: Final = 900
HANDSHAKE_TIMEOUT_S: Final = 20  # of TLS, and of HTTP/2 until the client's first settings
UNREAD_BYTES: Final = 128 * 2**10  # of a call: what a client may send before it is read
_EXTRA_STREAMS: Final = 64


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how to listen. Port 0 picks a free port; a Unix socket (unix:PATH) has no port."""

    host: str
    port: int
    max_message_bytes: int
    max_calls: int  # of one connection
    write_timeout_s: float
    max_reference_images: int
    reading: ReadingLimits
    max_connection_age_s: float = 0  # 0: no limit
    identity: Callable[[], TlsIdentity] | None = None  # the current one; None: no TLS
    shares_port: bool = False  # with other processes of this server


def channel_options(listening: Listening) -> list[tuple[str, int]]:
    """Limits and keepalive of connections; docs/reliability.md gives the reasons."""
    options = {
        "grpc.max_receive_message_length": listening.max_message_bytes,
        "grpc.max_send_message_length": listening.max_message_bytes,
        # More than max_calls, so that further calls are rejected and probes answered on the same connection.
        "grpc.max_concurrent_streams": listening.max_calls + _EXTRA_STREAMS,
        # A call that waits to be read takes this much. While a message is read, its window grows to its size.
        "grpc.http2.lookahead_bytes": UNREAD_BYTES,
        "grpc.http2.bdp_probe": 0,  # it would let the window grow to 8 MiB
        "grpc.server_handshake_timeout_ms": HANDSHAKE_TIMEOUT_S * 1000,
        "grpc.so_reuseport": int(listening.shares_port),  # else a second server on the same port is a mistake
        # A peer that vanished is noticed within 80 s, and its streams are freed.
        "grpc.keepalive_time_ms": KEEPALIVE_TIME_S * 1000,
        "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_S * 1000,
        "grpc.http2.max_pings_without_data": 0,  # no limit: an idle stream is pinged as long as it is open
        # How often clients may ping: our clients do so every minute, others more often.
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": MIN_PING_INTERVAL_S * 1000,
        "grpc.max_connection_idle_ms": MAX_CONNECTION_IDLE_S * 1000,
    }
    if listening.max_connection_age_s:
        # No grace time: a stream may stay on its old connection until it ends.
        options["grpc.max_connection_age_ms"] = round(listening.max_connection_age_s * 1000)
    return list(options.items())


def bind(server: aio.Server, listening: Listening) -> str:
    """Binds the address; returns it as HOST:PORT or as unix:PATH.

    Raises:
        StartupError: it cannot be bound.
    """
    address = listening_address(listening.host, listening.port)
    try:
        with private_socket_file(address):
            if listening.identity is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, _credentials(listening.identity))
    except RuntimeError as error:
        raise StartupError(f"Cannot listen on {address}: {_cause(address)}") from error
    return listening_address(listening.host, port)


def _cause(address: str) -> str:
    if is_unix_socket(address):
        return (
            "name a path of at most 107 characters in a folder that the server's user can write to, where no other "
            "file is."
        )
    return "this machine does not have it, or another server uses the port. Choose another with --host and --port."


def _credentials(read_identity: Callable[[], TlsIdentity]) -> grpc.ServerCredentials:
    in_use = read_identity()

    def changed_configuration() -> grpc.ServerCertificateConfiguration | None:
        # Called for every new connection, on a thread of gRPC. It reads no file and cannot fail.
        nonlocal in_use
        latest = read_identity()
        if latest is in_use:
            return None
        in_use = latest
        return _configuration(latest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(in_use),
        changed_configuration,  # type: ignore[arg-type] # None is allowed: no change
        require_client_authentication=in_use.client_ca is not None,
    )


def _configuration(identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.certificate_chain)], identity.client_ca)
