"""The header `traceparent` of W3C Trace Context."""

from __future__ import annotations

import re
from typing import Final

_TRACE_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?"
)


def trace_id_of(trace_parent: str) -> str:
    """The trace id, 32 hexadecimal digits; empty if this text, which a caller has chosen, names no trace."""
    match = _TRACE_PARENT.fullmatch(trace_parent)
    return "" if match is None else match.group(1)


def is_recorded(trace_parent: str) -> bool:
    """Whether its caller says that somebody keeps the trace which it names."""
    match = _TRACE_PARENT.fullmatch(trace_parent)
    return match is not None and bool(int(match.group(2), 16) & 1)
