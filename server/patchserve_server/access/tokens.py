"""The file of --auth-tokens: who has a bearer token, and what it may do. It holds hashes, never a token.

A line is `NAME SCOPE[,SCOPE] sha256:HEX [expires=TIME]`; what follows a # is a comment. A name may stand on several
lines, so that a token can be replaced while the old one still works.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from patchserve_server.access.reloading import Reloading
from patchserve_server.domain.callers import Caller, Scope
from patchserve_server.domain.errors import ExpiredCredentialsError, InvalidCredentialsError, StartupError

PREFIX: Final = "patchserve_"  # lets scanners of leaked secrets find one
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_TOKEN_BYTES = 32
_FORM = "NAME SCOPE[,SCOPE] sha256:HASH [expires=TIME], as `patchserve-server token create` prints it"


@dataclass(frozen=True, slots=True)
class _Entry:
    caller: Caller
    digest: bytes
    expires: datetime | None


Entries: TypeAlias = tuple[_Entry, ...]


class TokenVerifier:
    """Takes the tokens whose hashes stand in the file."""

    def __init__(self, entries: Reloading[Entries]) -> None:
        self._entries = entries

    def caller(self, token: str) -> Caller:
        """Whose token it is.

        Raises:
            InvalidCredentialsError: nobody's.
            ExpiredCredentialsError: its time is over.
        """
        digest = _digest(token)
        found = None
        for entry in self._entries.value:  # all of them, each in the same time: how long it takes tells nothing
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        if found is None:
            raise InvalidCredentialsError
        if found.expires is not None and found.expires <= datetime.now(UTC):
            raise ExpiredCredentialsError
        return found.caller


def reloading_tokens(path: Path) -> Reloading[Entries]:
    """The lines of this file, renewed as it is.

    Raises:
        StartupError: it cannot be read, has no line, or a line is not of the form; the message names the line.
    """
    return Reloading({"--auth-tokens": path}, lambda content: tuple(_entries(content)))


def new_token(name: str, scopes: Iterable[Scope], expires: datetime | None = None) -> tuple[str, str]:
    """A token of 256 random bits, and its line for the file."""
    token = PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    line = f"{name} {','.join(sorted(scopes))} sha256:{_digest(token).hex()}"
    return token, line if expires is None else f"{line} expires={expires.isoformat()}"


def is_name(text: str) -> bool:
    """Whether it is 1 to 64 of A-Z a-z 0-9 . _ @ - with a letter or a digit first."""
    return _NAME.fullmatch(text) is not None


def expiry(text: str) -> datetime:
    """An ISO 8601 date or time; UTC where it names no zone, and the beginning of the day where it names no time.

    Raises:
        ValueError: it is none.
    """
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _digest(token: str) -> bytes:
    # Neither salted nor slow: nobody guesses 256 random bits, and a call should not cost 100 ms (docs/adr/0008).
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _entries(content: bytes) -> Iterator[_Entry]:
    seen: dict[bytes, int] = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            entry = _entry(*fields)
        except (TypeError, ValueError) as error:
            raise StartupError(f"--auth-tokens, line {number}: a line is {_FORM}.") from error
        if entry.digest in seen:
            raise StartupError(f"--auth-tokens, line {number}: the same hash as in line {seen[entry.digest]}.")
        seen[entry.digest] = number
        yield entry
    if not seen:
        raise StartupError(f"--auth-tokens: there is no token in the file. A line is {_FORM}.")


def _entry(name: str, scopes: str, hashed: str, expires: str = "") -> _Entry:
    found = _HASH.fullmatch(hashed)
    label, _, time = expires.partition("=")
    if found is None or not is_name(name) or label not in ("", "expires"):
        raise ValueError
    caller = Caller(name, frozenset(Scope(scope) for scope in scopes.split(",")))
    return _Entry(caller, bytes.fromhex(found[1]), expiry(time) if label else None)
