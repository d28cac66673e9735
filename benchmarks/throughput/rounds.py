"""Many cases in turns, and one row for each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from rich.console import Console

from throughput.processes import FailedError
from throughput.systems import Case, Run

K = TypeVar("K")
Row = dict[str, Any]


def in_turns(
    cells: Mapping[K, Callable[[float], Run]], *, rounds: int, seconds: float, console: Console
) -> dict[K, list[Run]]:
    """Every cell for some seconds, then every cell again: a slow minute of the machine slows them all.

    Every other round goes backwards, so that none has always the same one before it. A cell that fails is told.
    """
    found: dict[K, list[Run]] = {key: [] for key in cells}
    for number in range(rounds):
        order = list(cells)[:: 1 if number % 2 == 0 else -1]
        for position, key in enumerate(order):
            console.print(f"round {number + 1} of {rounds}, {position + 1} of {len(order)}: {_words(key)}")
            try:
                found[key].append(cells[key](seconds))
            except FailedError as error:
                console.print(f"failed: {error}", style="red")
    return {key: runs for key, runs in found.items() if runs}


def row_of(case: Case, runs: Sequence[Run]) -> Row:
    """Medians over the rounds; percentiles over all answers of all rounds."""
    latencies_ms = sorted(latency for run in runs for latency in run.latencies_ms)
    return asdict(case) | {
        "images_per_second": round(statistics.median(run.images_per_second for run in runs), 2),
        "p50_ms": percentile(latencies_ms, 50),
        "p95_ms": percentile(latencies_ms, 95),
        "p99_ms": percentile(latencies_ms, 99),
        "peak_rss_mib": round(max(run.peak_rss_mib for run in runs)),
        "cpu_s_per_image": round(statistics.median(run.cpu_s_per_image for run in runs), 4),
    }


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that so many per cent of the others do not exceed."""
    return round(ordered[max(0, -(-percent * len(ordered) // 100) - 1)], 1)


def _words(key: object) -> str:
    if not isinstance(key, Case):
        return str(key)
    load = load_words(key.clients, key.streams)
    return f"{key.system}, {key.backbone} {key.precision}, {load}{', overlay' if key.overlay else ''}"


def load_words(clients: int | None, streams: int | None) -> str:
    if clients is None:
        return "in process, one at a time"
    count, word = (streams, "stream") if streams else (clients, "client")
    return f"{count} {word}{'s' * (count > 1)}"
