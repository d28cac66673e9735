"""When certificates and tokens expire, for whoever watches the server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from patchserve_server.access.credentials import Credentials
from patchserve_server.access.tokens import Entries
from patchserve_server.domain.readings import Reading, Source

_MOST_TOKENS: Final = 100


def expiries_of(credentials: Credentials) -> Source:
    """Reads when the certificate expires, and the tokens of each name. What is read again changes with its file."""

    def read() -> Iterator[Reading]:
        identity, tokens = credentials.identity, credentials.tokens
        if identity is not None and (expires := identity.value.expires) is not None:
            yield Reading("certificate_expiry_timestamp_seconds", expires.timestamp())
        if tokens is not None:
            by_name = _last_expiries(tokens.value)
            for name in sorted(by_name, key=by_name.__getitem__)[:_MOST_TOKENS]:
                yield Reading("token_expiry_timestamp_seconds", by_name[name].timestamp(), (name,))

    return read


def _last_expiries(entries: Entries) -> dict[str, datetime]:
    """When the last token of each name expires, of those that have none without an end."""
    endless = {entry.caller.name for entry in entries if entry.expires is None}
    last: dict[str, datetime] = {}
    for entry in entries:
        name = entry.caller.name
        if entry.expires is not None and name not in endless:
            last[name] = max(entry.expires, last.get(name, entry.expires))
    return last
