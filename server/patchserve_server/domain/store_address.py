"""The URL of a store on object storage: which bucket, and the prefix of its keys. Nothing secret may be in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from patchserve_server.domain.errors import StartupError

_SCHEMES: Final = ("s3", "gs", "az", "memory")
_EXAMPLES: Final = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or memory://NAME"
STORES: Final = f"a folder, {_EXAMPLES}"
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}[A-Za-z0-9]")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._=+-]{1,200}")
_MAX_PREFIX_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A bucket and the prefix of all keys in it; empty: the whole bucket."""

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}{'/' if self.prefix else ''}{self.prefix}"


def is_url(text: str) -> bool:
    """Whether this is a URL, and not a folder. One with a slash too few is one too: it must not become a folder."""
    scheme, separator, _ = text.partition(":")
    return "://" in text or (bool(separator) and scheme.lower() in _SCHEMES)


def parse_address(url: str) -> StoreAddress:
    """The address that a URL names.

    Raises:
        StartupError: it names none, or contains more than a bucket and a prefix. The message does not repeat what may
            be secret.
    """
    try:
        parts = urlsplit(url)
        has_port = parts.port is not None
    except ValueError:
        raise StartupError(f"The URL of the store cannot be parsed; allowed are {_EXAMPLES}.") from None
    if "@" in url or parts.query or parts.fragment:
        raise StartupError(
            f"The URL of the store contains more than a bucket and a prefix, such as {_EXAMPLES}. Credentials never go "
            "there: set the variables of the provider (docs/stores.md), or use the role of the machine."
        )
    if "://" not in url:  # with one slash it was meant as a bucket, and each server would have a folder of its own
        raise StartupError(f"A URL has two slashes after its colon; allowed are {_EXAMPLES}.")
    if parts.scheme not in _SCHEMES:
        raise StartupError(f"A store's URL cannot begin with {parts.scheme}://; allowed are {STORES}.")
    if has_port:
        raise StartupError(
            "The URL of the store has a port, but it names a bucket only. The address of another service than the "
            "provider's goes into a variable, such as AWS_ENDPOINT_URL=http://HOST:PORT (docs/stores.md)."
        )
    return StoreAddress(parts.scheme, _bucket(parts.scheme, parts.netloc), _prefix(parts.path))


def _bucket(scheme: str, bucket: str) -> str:
    if scheme == "memory" and not bucket:
        return ""
    if not bucket:
        raise StartupError(f"The URL of the store names no bucket; allowed are {_EXAMPLES}.")
    if not _BUCKET.fullmatch(bucket):
        raise StartupError(
            f"{bucket!a} cannot be the name of a bucket: it has 2 to 223 letters, digits, dots, dashes and underscores."
        )
    return bucket


def _prefix(path: str) -> str:
    prefix = path.strip("/")
    segments = prefix.split("/") if prefix else []
    if len(prefix) > _MAX_PREFIX_CHARACTERS:
        raise StartupError(
            f"The prefix of the store has {len(prefix)} characters; {_MAX_PREFIX_CHARACTERS} are allowed."
        )
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise StartupError(
                f"The prefix of the store contains {segment!a}; between its slashes, letters, digits and . _ - = + "
                "are allowed."
            )
    return prefix
