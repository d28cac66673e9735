"""Where the server listens: plain or TLS, and who can reach it."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc
from grpc import aio

from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import StartupError

KEEPALIVE_TIME_S: Final = 60
KEEPALIVE_TIMEOUT_S: Final = 20
MIN_PING_INTERVAL_S: Final = 10
MAX_CONNECTION_IDLE_S: Final = 900
_BESIDE_CALLS: Final = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how to listen. Port 0 takes any free one."""

    host: str
    port: int
    max_message_bytes: int
    max_calls: int  # of one connection
    write_timeout_s: float
    max_connection_age_s: float = 0  # 0: any
    identity: Callable[[], TlsIdentity] | None = None  # the present one; None: plain text
    insecure: bool = False  # plain text where other machines can reach it


def channel_options(listening: Listening) -> list[tuple[str, int]]:
    """What connections are told and held to; docs/reliability.md says why."""
    options = {
        "grpc.max_receive_message_length": listening.max_message_bytes,
        "grpc.max_send_message_length": listening.max_message_bytes,
        # More than there may be calls: a call too many is refused, and a probe answered, on the same connection too.
        "grpc.max_concurrent_streams": listening.max_calls + _BESIDE_CALLS,
        "grpc.so_reuseport": 0,  # a second server on the port is a mistake, not a peer
        # A peer that is gone without a word is noticed, and its streams are freed, within 80 s.
        "grpc.keepalive_time_ms": KEEPALIVE_TIME_S * 1000,
        "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_S * 1000,
        "grpc.http2.max_pings_without_data": 0,  # a quiet stream is pinged for as long as it lives
        # What clients may do: ours ping every minute, others more often.
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": MIN_PING_INTERVAL_S * 1000,
        "grpc.max_connection_idle_ms": MAX_CONNECTION_IDLE_S * 1000,
    }
    if listening.max_connection_age_s:
        # No grace is set: a stream that began on an old connection may go on there for as long as it likes.
        options["grpc.max_connection_age_ms"] = round(listening.max_connection_age_s * 1000)
    return list(options.items())


def bind(server: aio.Server, listening: Listening, *, authenticated: bool) -> str:
    """Binds the port; returns the address as HOST:PORT.

    Raises:
        StartupError: it cannot be bound, or other machines could reach it without TLS and nobody said that they may.
    """
    _check(listening, authenticated=authenticated)
    host = f"[{listening.host}]" if ":" in listening.host else listening.host
    address = f"{host}:{listening.port}"
    try:
        if listening.identity is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(listening.identity))
    except RuntimeError as error:
        message = (
            f"Cannot listen on {address}: the address is not one of this machine, or another server uses the port. "
            "Name another with --host and --port."
        )
        raise StartupError(message) from error
    return f"{host}:{port}"


def _check(listening: Listening, *, authenticated: bool) -> None:
    if is_loopback(listening.host):
        return
    if listening.identity is None:
        if not listening.insecure:
            message = (
                f"Other machines can reach {listening.host}, and without TLS everything would travel unencrypted: give "
                "--tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure."
            )
            raise StartupError(message)
        what = "images, answers and tokens" if authenticated else "images and answers"
        _log.warning("--insecure: %s travel unencrypted on %s", what, listening.host)
    if not authenticated and (listening.identity is None or listening.identity().client_ca is None):
        _log.warning(
            "Whoever reaches %s may load and delete references: there is no --auth-tokens, no --jwt-issuer and no "
            "--tls-client-ca",
            listening.host,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it. A name is looked up; one that leads nowhere does not count."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        return False
    addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
    return bool(addresses) and all(address.is_loopback for address in addresses)


def _credentials(current: Callable[[], TlsIdentity]) -> grpc.ServerCredentials:
    handed = current()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # For every new connection, on a thread of gRPC: reads no file, cannot fail.
        nonlocal handed
        latest = current()
        if latest is handed:
            return None
        handed = latest
        return _configuration(latest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(handed),
        renewed,  # type: ignore[arg-type] # None is allowed, and means no change
        require_client_authentication=handed.client_ca is not None,
    )


def _configuration(identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.certificate_chain)], identity.client_ca)
