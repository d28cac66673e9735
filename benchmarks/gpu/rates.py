"""How often something runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

_WINDOWS = 5  # of each of two things that are compared: they take turns


def runs_per_s(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """How often a second each runs. They take turns, so that a slow moment of the machine slows all of them."""
    window_s = seconds / (_WINDOWS * len(runs))
    found = {name: list[float]() for name in runs}
    for run in runs.values():
        run()
    for _ in range(_WINDOWS):
        for name, run in runs.items():
            count, started_s = 0, time.perf_counter()
            while (passed_s := time.perf_counter() - started_s) < window_s or not count:
                run()
                count += 1
            found[name].append(count / passed_s)
    return {name: statistics.median(rates) for name, rates in found.items()}
