"""The token file of --auth-tokens: who has a bearer token, and which scopes it has. It contains hashes, never a token.

A line is `NAME SCOPE[,SCOPE] sha256:HEX [expires=TIME]`; a # starts a comment. Several lines may have the same name, so
that a token can be replaced while the old one is still valid.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Final, TypeAlias

from patchserve_server.access.reloading import Reloading
from patchserve_server.domain.callers import Caller, Scope
from patchserve_server.domain.errors import ExpiredCredentialsError, InvalidCredentialsError, StartupError
from patchserve_server.system.file_locks import lock_file

PREFIX: Final = "patchserve_"  # lets secret scanners find leaked tokens
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_TOKEN_BYTES = 32
_LINE_FORMAT = "NAME SCOPE[,SCOPE] sha256:HASH [expires=TIME], as `patchserve-server token create` prints it"


@dataclass(frozen=True, slots=True)
class _Entry:
    caller: Caller
    digest: bytes
    expires: datetime | None


Entries: TypeAlias = tuple[_Entry, ...]


class TokenVerifier:
    """Accepts the tokens whose hashes are in the token file."""

    def __init__(self, entries: Reloading[Entries]) -> None:
        self._entries = entries

    def verify(self, token: str) -> Caller:
        """The caller that the token belongs to.

        Raises:
            InvalidCredentialsError: its hash is not in the file.
            ExpiredCredentialsError: it has expired.
        """
        digest = _digest(token)
        valid_entry = None
        for entry in self._entries.value:  # compares every entry in constant time, so that the duration reveals nothing
            if hmac.compare_digest(entry.digest, digest):
                valid_entry = entry
        if valid_entry is None:
            raise InvalidCredentialsError
        if valid_entry.expires is not None and valid_entry.expires <= datetime.now(UTC):
            raise ExpiredCredentialsError
        return valid_entry.caller


def reloading_tokens(path: Path) -> Reloading[Entries]:
    """The entries of this token file.

    Raises:
        StartupError: the file cannot be read, has no entry, or a line has the wrong format; the message names the line.
    """
    return Reloading({"--auth-tokens": path}, lambda content: tuple(_parse_lines(content)))


def new_token(name: str, scopes: Iterable[Scope], expires: datetime | None = None) -> tuple[str, str]:
    """A new token of 256 random bits, and its line for the token file."""
    token = PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    line = f"{name} {','.join(sorted(scopes))} sha256:{_digest(token).hex()}"
    return token, line if expires is None else f"{line} expires={expires.isoformat()}"


def append_token(path: Path, line: str, *, another: bool = False) -> None:
    """Add a line of `new_token` to a token file. Only its owner may read a file that this creates.

    Args:
        path: of the file; it is created if it is missing.
        line: for one caller.
        another: whether the caller may have a token in the file already, to replace it while both are valid.

    Raises:
        StartupError: the caller has a token in the file already, another line has the wrong format, or the file cannot
            be written. Then the file is as it was.
    """
    try:
        with open(path, "a+b", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            lock_file(file, waits=True)
            file.seek(0)
            content = file.read()
            *others, added = _with_line(path, content, line)
            if not another and added.caller.name in {entry.caller.name for entry in others}:
                message = (
                    f"{added.caller.name} has a token in {path} already. Choose another name, or add a second token "
                    "with --another, and delete the old line when the caller uses the new one."
                )
                raise StartupError(message)
            _append(file, _separator(content) + line.encode() + b"\n")
    except OSError as error:
        raise StartupError(f"--file {path}: {error.strerror}. Name a file that you can write.") from error


def _with_line(path: Path, content: bytes, line: str) -> list[_Entry]:
    try:
        return list(_parse_lines(content + _separator(content) + line.encode()))
    except StartupError as error:
        raise StartupError(error.message.replace("--auth-tokens", f"--file {path}", 1)) from error


def _append(file: FileIO, addition: bytes) -> None:
    """Append all of it in one step, or nothing."""
    end = file.seek(0, os.SEEK_END)
    if file.write(addition) != len(addition):
        file.truncate(end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file.fileno())


def _separator(content: bytes) -> bytes:
    return b"" if content.endswith(b"\n") or not content else b"\n"


def is_valid_name(text: str) -> bool:
    """Whether it has 1 to 64 of A-Z a-z 0-9 . _ @ - and starts with a letter or a digit."""
    return _NAME.fullmatch(text) is not None


def parse_expiry(text: str) -> datetime:
    """An ISO 8601 date or time. Without a zone it is UTC; without a time it is the start of the day.

    Raises:
        ValueError: it is neither.
    """
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _digest(token: str) -> bytes:
    # No salt and no slow hash: nobody can guess 256 random bits, and a call should not cost 100 ms (docs/adr/0008).
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _parse_lines(content: bytes) -> Iterator[_Entry]:
    line_of: dict[bytes, int] = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            entry = _parse_entry(*fields)
        except (TypeError, ValueError) as error:
            raise StartupError(f"--auth-tokens, line {number}: the format of a line is {_LINE_FORMAT}.") from error
        if entry.digest in line_of:
            raise StartupError(f"--auth-tokens, line {number}: the same hash as in line {line_of[entry.digest]}.")
        line_of[entry.digest] = number
        yield entry
    if not line_of:
        raise StartupError(f"--auth-tokens: there is no token in the file. The format of a line is {_LINE_FORMAT}.")


def _parse_entry(name: str, scopes: str, hashed: str, expires: str = "") -> _Entry:
    hash_match = _HASH.fullmatch(hashed)
    label, _, time = expires.partition("=")
    if hash_match is None or not is_valid_name(name) or label not in ("", "expires"):
        raise ValueError
    caller = Caller(name, frozenset(Scope(scope) for scope in scopes.split(",")))
    return _Entry(caller, bytes.fromhex(hash_match[1]), parse_expiry(time) if label else None)
