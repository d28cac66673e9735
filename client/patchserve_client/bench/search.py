"""Which rates to try: larger ones until the objective breaks, then between the last two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from patchserve_client.bench.step import Outcome, Step

Measure = Callable[[float], Awaitable[Step | None]]
"""Measures one rate. None: it was interrupted."""

_FACTOR: Final = 2.0
_CLOSE: Final = 1.08  # the last two rates are then as good as equal
_LOWEST_RATE: Final = 0.05


async def find_limit(measure: Measure, start_rate: float, max_rate: float) -> None:
    """Measure rates until the largest one is known that keeps the objective, or `measure` was interrupted.

    Args:
        measure: remembers the steps itself.
        start_rate: images a second, of the first step.
        max_rate: no step is faster.
    """
    kept: float | None = None
    broken: float | None = None
    rate = min(start_rate, max_rate)
    while _LOWEST_RATE <= rate <= max_rate:
        step = await measure(rate)
        if step is None or step.completed == 0:  # a slower rate would not help
            return
        if step.outcome is Outcome.KEPT:
            kept = rate
        else:
            broken = rate
        next_rate = _next(kept, broken, max_rate)
        if next_rate is None:
            return
        rate = next_rate


def _next(kept: float | None, broken: float | None, max_rate: float) -> float | None:
    if broken is None:
        return None if kept is None or kept >= max_rate else min(_FACTOR * kept, max_rate)
    if kept is None:
        return broken / _FACTOR
    return None if broken / kept <= _CLOSE else float((kept * broken) ** 0.5)
