"""Latency against throughput as lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from patchserve_client.bench.step import Step

_WIDTH: Final = 48
_LONGEST_FACTOR: Final = 20.0  # latencies of a broken step may be any: the axis ends at so many objectives


def chart_lines(steps: Sequence[Step], objective_ms: float) -> Iterator[str]:
    """A line for each step with p50 (o) and p99 (x) on a logarithmic axis, and the objective (|)."""
    measured = sorted((step for step in steps if step.p50_ms and step.p99_ms), key=lambda step: step.rate)
    if not measured:
        return
    shortest_ms = min(objective_ms, *(step.p50_ms or objective_ms for step in measured))
    longest_ms = min(_LONGEST_FACTOR * objective_ms, max(step.p99_ms or 0.0 for step in measured))
    longest_ms = max(longest_ms, 1.1 * objective_ms)

    def place(time_ms: float) -> int:
        share = math.log(time_ms / shortest_ms) / math.log(longest_ms / shortest_ms)
        return round(min(max(share, 0.0), 1.0) * (_WIDTH - 1))

    title = f"{shortest_ms:.3g} ms"
    yield f"{'done/s':>8}  {title}{longest_ms:>{_WIDTH - len(title) - 3}.3g} ms   o p50   x p99   | objective"
    for step in measured:
        cells = [" "] * _WIDTH
        start, end = place(step.p50_ms or 0.0), place(step.p99_ms or 0.0)
        cells[start : end + 1] = "-" * (end - start + 1)
        cells[place(objective_ms)] = "|"
        cells[start], cells[end] = "o", "x"
        yield f"{step.completed_rate:>8.3g}  {''.join(cells).rstrip()}"
