"""Who calls and what it may do, and what the server shows of itself."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Scope(enum.StrEnum):
    """A right that a credential carries. Neither includes the other."""

    INFER = "infer"
    MANAGE = "manage"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a credential belongs to. The name is for the log and is no secret."""

    name: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """PEM as it was read. With `client_ca` a client needs a certificate that one of these has signed."""

    certificate_chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None
