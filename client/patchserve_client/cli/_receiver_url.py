"""The URLs of webhooks and brokers: checked before the first frame, and without secrets in messages."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit


def checked_url(url: str, schemes: Sequence[str]) -> SplitResult:
    """The parts of a URL.

    Raises:
        ValueError: it is none, or another one than is allowed.
    """
    allowed = " or ".join(f"{scheme}://" for scheme in schemes)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("A URL must consist of printable ASCII characters; encode others, as in %20.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"This is not a URL: {error}.") from error
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"The URL must begin with {allowed} and a host, not {url.partition('?')[0]!r}.")
    if parts.username is not None:
        raise ValueError("Leave the user and the password out of the URL, which other processes can see.")
    try:
        parts.hostname.encode("idna")  # as the system's resolver will get it
    except UnicodeError as error:
        raise ValueError(f"The host {parts.hostname[:300]!r} has a part that is empty, or longer than 63.") from error
    if port == 0 or parts.fragment:
        raise ValueError("The URL must have no fragment, and another port than 0.")
    return parts


def shown_url(url: SplitResult) -> str:
    """The URL for messages: without its query, which may hold a token."""
    return url._replace(query="").geturl()
