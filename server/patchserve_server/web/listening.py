"""Where the HTTP face listens, and its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from patchserve_server.access.addresses import is_loopback
from patchserve_server.domain.callers import TlsIdentity


@dataclass(frozen=True, slots=True)
class HttpListening:
    """Where and how to listen. Port 0 picks a free port."""

    host: str
    port: int
    max_message_bytes: int  # of a request, and of a response
    first_message_timeout_s: float  # how long the body of a request may take
    write_timeout_s: float  # how long a response waits for a caller who does not read
    max_connections: int
    client_share: float  # of the connections
    large_messages: int  # of WebSockets, that are received at a time
    max_connection_age_s: float = 0  # 0: no limit
    identity: Callable[[], TlsIdentity] | None = None  # the current one; None: no TLS
    shares_port: bool = False  # with the process that reserves it
    allowed_origins: tuple[str, ...] = ()  # other sites that may use this server
    allowed_hosts: tuple[str, ...] = ()  # names of this server, beside those of this machine

    def known_hosts(self, *, needs_token: bool) -> frozenset[str] | None:
        """The names of this server in requests, beside IP addresses; None: any.

        Without tokens, a server that only this machine can reach trusts those who can reach it. A site whose name
        points to this machine must not be one of them (DNS rebinding).
        """
        if self.allowed_hosts or (is_loopback(self.host) and not needs_token):
            return frozenset({"localhost", *self.allowed_hosts})
        return None
