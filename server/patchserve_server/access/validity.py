"""From when until when certificates and tokens are valid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from patchserve_server.access.reloading import Reloading
from patchserve_server.access.tokens import reloading_tokens

_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Validity:
    """When something is valid.

    Args:
        flag: that names its file.
        name: what it is, in words, such as `certificate of belt.example`.
        start: from when on (UTC).
        end: until when (UTC).
    """

    flag: str
    name: str
    start: datetime
    end: datetime

    @property
    def never_ends(self) -> bool:
        return self.end == _NEVER


def certificate_validities(flag: str, path: Path) -> list[Validity]:
    """Of every certificate in a PEM file.

    Raises:
        StartupError: it cannot be read, or has none.
    """
    from patchserve_server.access.certificates import parse_certificates  # noqa: PLC0415 - imports cryptography

    certificates = Reloading({flag: path}, lambda content: parse_certificates(flag, content)).value
    return [
        Validity(
            flag, f"certificate of {each.subject.rfc4514_string()}", each.not_valid_before_utc, each.not_valid_after_utc
        )
        for each in certificates
    ]


def token_validities(path: Path) -> list[Validity]:
    """Of every token of a token file.

    Raises:
        StartupError: it cannot be read, has none, or a line has the wrong format.
    """
    entries = reloading_tokens(path).value
    return [
        Validity("--auth-tokens", f"token of {each.caller.name}", _FIRST, each.expires or _NEVER) for each in entries
    ]
