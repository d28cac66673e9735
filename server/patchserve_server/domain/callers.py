"""Callers and their rights, and the identity of the server."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

_MAX_NAME_LENGTH: Final = 64


class Scope(enum.StrEnum):
    """A right of a credential. Neither scope includes the other."""

    INFER = "infer"
    MANAGE = "manage"


def printable_name(name: str) -> str:
    """A name that somebody else chose, for the log: printable ASCII, at most 64 characters."""
    return ascii(name)[1:-1][:_MAX_NAME_LENGTH]


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a credential. The name appears in the log and is not secret."""

    name: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """Certificate chain and key (PEM), and when the first certificate expires.

    With `client_ca`, clients need a certificate from one of these authorities.
    """

    certificate_chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None
    expires: datetime | None = None  # None: it is not known


def client_of(token_name: str, certificate_name: str, address: str) -> str:
    """The client of a call: who shares what the call uses. The token counts, else the certificate, else the address."""
    if token_name:
        return f"token {token_name}"
    return f"certificate {certificate_name}" if certificate_name else f"peer {address}"
