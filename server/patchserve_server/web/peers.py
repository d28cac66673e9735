"""Who is at the other end of a connection: the server sets it, calls read it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import quote

from starlette.types import Scope

from patchserve_server.domain.callers import client_of, printable_name

_EXTENSION: Final = "patchserve.peer"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    Args:
        address: written as gRPC writes it, so that one caller is one client on both ports: without its port.
        certificate_name: of its client certificate; empty without one.
        abort: ends the connection at once, and drops what was not sent.
    """

    address: str
    certificate_name: str
    abort: Callable[[], None]

    @property
    def client(self) -> str:
        """The client of calls without a token."""
        return client_of("", self.certificate_name, self.address)


def peer_of(scope: Scope) -> Peer:
    """The peer of a request."""
    return cast(Peer, scope["extensions"][_EXTENSION])


def set_peer(scope: Any, peer: Peer) -> None:  # noqa: ANN401 - uvicorn's and Starlette's types of a scope differ
    """Lets `peer_of` find the peer."""
    scope.setdefault("extensions", {})[_EXTENSION] = peer


def address_text(host: str) -> str:
    """An IP address as gRPC writes it, such as `ipv4:127.0.0.1` or `ipv6:%5B::1%5D`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return f"ipv6:{quote(f'[{host}]', safe=':')}"
        address = address.ipv4_mapped
    return f"ipv4:{address}"


def certificate_name(certificate: dict[str, Any] | None) -> str:
    """The common name in a certificate, as `ssl` decodes it; empty without one."""
    fields = (field for names in (certificate or {}).get("subject", ()) for field in names)
    return printable_name("".join(value for key, value in fields if key == "commonName"))
