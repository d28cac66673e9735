"""How often something may happen."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """Allows something `per_s` times a second, and up to `burst` times at once after a rest."""

    def __init__(self, per_s: float, burst: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now_s = now_s
        self._left = float(burst)
        self._counted_at_s = now_s()

    def take(self) -> bool:
        """Whether it may happen now; then it counts."""
        now_s = self._now_s()
        self._left = min(self._burst, self._left + (now_s - self._counted_at_s) * self._per_s)
        self._counted_at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
