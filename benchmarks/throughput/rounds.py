"""Cases measured in interleaved rounds, and one result row for each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from rich.console import Console

from throughput.processes import RequestFailedError
from throughput.systems import Case, Measurement

K = TypeVar("K")
Row = dict[str, Any]


def run_interleaved(
    measures: Mapping[K, Callable[[float], Measurement]], *, rounds: int, seconds: float, console: Console
) -> dict[K, list[Measurement]]:
    """Measure every case for some seconds, then every case again, so that a slow minute of the host slows all of them.

    Every second round goes backwards, so that no case always follows the same one. Cases that fail are printed and
    left out.
    """
    measurements: dict[K, list[Measurement]] = {key: [] for key in measures}
    for number in range(rounds):
        order = list(measures)[:: 1 if number % 2 == 0 else -1]
        for position, key in enumerate(order):
            console.print(f"round {number + 1} of {rounds}, {position + 1} of {len(order)}: {_label(key)}")
            try:
                measurements[key].append(measures[key](seconds))
            except RequestFailedError as error:
                console.print(f"failed: {error}", style="red")
    return {key: taken for key, taken in measurements.items() if taken}


def result_row(case: Case, measurements: Sequence[Measurement]) -> Row:
    """Medians over the rounds; percentiles over all responses of all rounds.

    A fair share is the time in which all clients are answered once. It is that of the round, so that it does not matter
    if the machine is slower in one of them.
    """
    latencies_ms = sorted(latency for measurement in measurements for latency in measurement.latencies_ms)
    fair_shares = sorted(
        latency / 1000 * measurement.images_per_second / (case.clients or 1)
        for measurement in measurements
        for latency in measurement.latencies_ms
    )
    return asdict(case) | {
        "images_per_second": round(statistics.median(each.images_per_second for each in measurements), 2),
        "p50_ms": round(percentile(latencies_ms, 50), 1),
        "p95_ms": round(percentile(latencies_ms, 95), 1),
        "p99_ms": round(percentile(latencies_ms, 99), 1),
        "p99_fair_shares": round(percentile(fair_shares, 99), 3),
        "peak_rss_mib": round(max(each.peak_rss_mib for each in measurements)),
        "cpu_s_per_image": round(statistics.median(each.cpu_s_per_image for each in measurements), 4),
    }


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` per cent of the values do not exceed (nearest rank)."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def describe_load(clients: int | None, streams: int | None) -> str:
    """Words such as "8 clients"."""
    if clients is None:
        return "in process, one at a time"
    count, word = (streams, "stream") if streams else (clients, "client")
    return f"{count} {word}{'s' * (count > 1)}"


def _label(key: object) -> str:
    if not isinstance(key, Case):
        return str(key)
    load = describe_load(key.clients, key.streams)
    return f"{key.system}, {key.backbone} {key.precision}, {load}{', overlay' if key.overlay else ''}"
