"""When to open a lost camera again, and when to give up."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 10.0
_STEADY_AFTER_S = 10.0  # a connection that lasted so long was a good one


class Reconnecting:
    """Growing delays between the attempts to open a camera, for at most `limit_s` seconds without a frame."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._delay_s = _FIRST_DELAY_S
        self._lost_at_s: float | None = None
        self._back_at_s: float | None = clock()

    @property
    def lost_for_s(self) -> float:
        """How long the camera has been lost; 0: it is not."""
        return 0.0 if self._lost_at_s is None else self._clock() - self._lost_at_s

    def frame_came(self) -> None:
        """The camera works."""
        now_s = self._clock()
        if self._back_at_s is None:
            self._back_at_s = now_s
        if now_s - self._back_at_s >= _STEADY_AFTER_S:
            self._delay_s = _FIRST_DELAY_S
        self._lost_at_s = None

    def lose(self) -> float | None:
        """The camera is lost, or an attempt failed: seconds to wait before the next attempt. None: give up."""
        now_s = self._clock()
        self._back_at_s = None
        if self._lost_at_s is None:
            self._lost_at_s = now_s
        remaining_s = self._lost_at_s + self._limit_s - now_s
        if remaining_s <= 0:
            return None
        delay_s = min(self._delay_s, remaining_s)
        self._delay_s = min(2 * self._delay_s, _LONGEST_DELAY_S)
        return delay_s
