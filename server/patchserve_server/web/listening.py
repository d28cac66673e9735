"""Where the HTTP face listens, and its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from patchserve_server.domain.callers import TlsIdentity


@dataclass(frozen=True, slots=True)
class HttpListening:
    """Where and how to listen. Port 0 picks a free port."""

    host: str
    port: int
    max_message_bytes: int  # of a request, and of a response
    first_message_timeout_s: float  # how long the body of a request may take
    write_timeout_s: float  # how long a response waits for a caller who does not read
    identity: Callable[[], TlsIdentity] | None = None  # the current one; None: no TLS
    insecure: bool = False  # allows no TLS although other machines can reach it
