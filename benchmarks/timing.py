"""Timing of functions, and where results are written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

K = TypeVar("K")
RESULTS = Path(__file__).resolve().parents[1] / "out" / "bench"


def best_ms(
    repeats: int, functions: Mapping[K, Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[K, float]:
    """The shortest time of each function. They run in turn, so that a slow minute of the machine slows all of them."""
    times_ms: dict[K, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, run in functions.items():
            started_s = clock()
            run()
            times_ms[name].append(1000 * (clock() - started_s))
    return {name: min(times) for name, times in times_ms.items()}


def write_results(path: Path, results: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
