"""When images arrive: a schedule that does not depend on the answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum


class Arrivals(StrEnum):
    """Independent callers, or a conveyor."""

    POISSON = "poisson"
    FIXED = "fixed"


def arrival_times_s(kind: Arrivals, rate: float, duration_s: float, seed: int) -> Iterator[float]:
    """The arrivals of `duration_s` seconds, in seconds from the start.

    Args:
        kind: exponential times between two arrivals, or equal ones.
        rate: arrivals a second.
        duration_s: no arrival is later.
        seed: of the exponential times.
    """
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    time_s = 0.0
    while True:
        time_s += draw.expovariate(rate) if kind is Arrivals.POISSON else 1 / rate
        if time_s > duration_s:
            return
        yield time_s
