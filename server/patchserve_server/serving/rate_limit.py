"""A limit of how often something is done."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateLimit:
    """So many times a second in the long run, and so many at once after a pause.

    Args:
        per_s: times a second.
        burst: at once.
        clock_s: the time.
    """

    def __init__(self, per_s: float, burst: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock_s = clock_s
        self._left = float(burst)
        self._counted_at_s = clock_s()

    def take(self) -> bool:
        """Whether it may be done once more now."""
        now_s = self._clock_s()
        self._left = min(self._burst, self._left + (now_s - self._counted_at_s) * self._per_s)
        self._counted_at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
