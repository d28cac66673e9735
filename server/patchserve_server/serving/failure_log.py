"""The log of failed calls. Anybody can make calls fail, so its size must not depend on how often somebody does."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from contextvars import Context
from typing import Final

from patchserve_server.domain.call_events import CALL_LOG

INTERVAL_S: Final = 10.0
LINES: Final = 5  # of each reason and caller, in one interval
MAX_KINDS: Final = 32  # reasons and callers that are told apart in one interval
_OTHERS: Final = "other callers"

_log = logging.getLogger(CALL_LOG)


class FailureLog:
    """Logs the first failures of each reason and caller one by one, and the others as a number every ten seconds."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()  # in this interval, by reason and caller

    def add(self, reason: str, client: str, line: str, fields: Mapping[str, object] | None = None) -> None:
        """Log the line of a failed call with these fields, or count it. At level DEBUG, every line is logged."""
        if not self._counts:
            # Of no call: its line is about those of many callers.
            asyncio.get_running_loop().call_later(INTERVAL_S, self._sum_up, context=Context())
        kind = (reason, client)
        if kind not in self._counts and len(self._counts) >= MAX_KINDS:
            kind = (reason, _OTHERS)
        self._counts[kind] += 1
        level = logging.INFO if self._counts[kind] <= LINES else logging.DEBUG
        _log.log(level, "%s", line, extra={"reason": reason, "client": client, **(fields or {})})

    def _sum_up(self) -> None:
        for (reason, client), count in self._counts.items():
            if (more := count - LINES) > 0:
                fields = {"reason": reason, "client": client, "calls": more}
                _log.warning("%s: %d more calls of %s failed in %.0f s", reason, more, client, INTERVAL_S, extra=fields)
        self._counts.clear()
