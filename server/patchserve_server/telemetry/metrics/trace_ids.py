"""The trace that a call belongs to, for exemplars: a way from a number to the calls behind it."""

from __future__ import annotations

import re
from typing import Final

from patchserve_server.domain.call_events import CallInfo, current_call

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]([0-9a-f])(?:-.*)?")
_NO_TRACE: Final = "0" * 32


def trace_id_of(traceparent: str) -> str:
    """The id in a W3C traceparent, if its caller records the trace; else empty."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or match[1] == _NO_TRACE or not int(match[2], 16) & 1:
        return ""
    return match[1]


class SentTraceIds:
    """The trace ids that callers sent with their calls, while these are in progress."""

    def __init__(self) -> None:
        self._ids: dict[CallInfo, str] = {}

    def begin(self, call: CallInfo) -> None:
        if trace_id := trace_id_of(call.header("traceparent")):
            self._ids[call] = trace_id

    def end(self, call: CallInfo) -> None:
        self._ids.pop(call, None)

    def current(self) -> str:
        """That of the call which the code that runs now works for; empty: it sent none."""
        call = current_call.get() if self._ids else None
        return "" if call is None else self._ids.get(call, "")
