"""Lines of the log about what callers can cause at any rate: one for all that happens in an interval."""

from __future__ import annotations

import math
import time


class LogInterval:
    """Counts what happens until the next line is due."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._count = 0
        self._logged_at_s = -math.inf

    def count(self) -> tuple[int, float] | None:
        """One more has happened. If a line is due: how many since the last line, and how many seconds ago that was."""
        self._count += 1
        now_s = time.monotonic()
        since_s = now_s - self._logged_at_s
        if since_s < self._interval_s:
            return None
        count, self._count, self._logged_at_s = self._count, 0, now_s
        return count, since_s
