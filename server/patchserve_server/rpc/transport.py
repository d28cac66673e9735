"""Where the server listens: plain or TLS, and who can reach it."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc import aio

from patchserve_server.domain.access import TlsIdentity
from patchserve_server.domain.errors import StartupError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how to listen. Port 0 takes any free one."""

    host: str
    port: int
    max_message_bytes: int
    identity: Callable[[], TlsIdentity] | None = None  # the present one; None: plain text
    insecure: bool = False  # plain text where other machines can reach it


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
        what = "pictures, answers and tokens" if authenticated else "pictures and answers"
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
