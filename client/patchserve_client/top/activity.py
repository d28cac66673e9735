"""What a server did between two answers of GetServerStats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchserve_client import DurationHistogram, ReferenceStats, ServerStats

_FULL = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class ReferenceActivity:
    """What was inspected with a reference: since the server's start, and lately."""

    reference_id: str  # empty: all others together
    intact: int
    anomalous: int
    failed: int
    images_per_s: float
    anomalous_share: float | None  # of the latest images; None: there were none


@dataclass(frozen=True, slots=True)
class Activity:
    """Rates and latencies of the latest interval. A latency is None if no image ended in it."""

    interval_s: float
    images_per_s: float
    calls_per_s: float
    rejected_per_s: float  # calls that were refused because of a limit
    failures_per_s: Mapping[str, float]  # of calls and frames, by reason
    wait_p50_ms: float | None
    wait_p99_ms: float | None
    inspection_p50_ms: float | None
    inspection_p90_ms: float | None
    inspection_p99_ms: float | None
    references: tuple[ReferenceActivity, ...]


def activity(earlier: ServerStats, later: ServerStats) -> Activity:
    """The difference of two answers of the same process."""
    interval_s = max(later.uptime_s - earlier.uptime_s, 1e-9)
    calls = _growth({(one.method, one.code): one.count for one in earlier.calls}, later)
    failures = {one.reason: one.count for one in earlier.failures}
    grown = {one.reason: one.count - failures.get(one.reason, 0) for one in later.failures}
    inspection, wait = _added(earlier.inspection, later.inspection), _added(earlier.wait, later.wait)
    before = {one.reference_id: one for one in earlier.references}
    return Activity(
        interval_s=interval_s,
        images_per_s=sum(inspection.counts) / interval_s,
        calls_per_s=sum(calls.values()) / interval_s,
        rejected_per_s=sum(count for (_, code), count in calls.items() if code == _FULL) / interval_s,
        failures_per_s={reason: count / interval_s for reason, count in grown.items() if count},
        wait_p50_ms=percentile_ms(wait, 50),
        wait_p99_ms=percentile_ms(wait, 99),
        inspection_p50_ms=percentile_ms(inspection, 50),
        inspection_p90_ms=percentile_ms(inspection, 90),
        inspection_p99_ms=percentile_ms(inspection, 99),
        references=tuple(_reference(before.get(one.reference_id), one, interval_s) for one in later.references),
    )


def _growth(earlier: Mapping[tuple[str, str], int], later: ServerStats) -> dict[tuple[str, str], int]:
    return {(one.method, one.code): one.count - earlier.get((one.method, one.code), 0) for one in later.calls}


def _reference(before: ReferenceStats | None, now: ReferenceStats, interval_s: float) -> ReferenceActivity:
    if before is None or now.intact < before.intact or now.anomalous < before.anomalous:  # it was deleted in between
        before = ReferenceStats(now.reference_id, 0, 0, 0)
    intact, anomalous = now.intact - before.intact, now.anomalous - before.anomalous
    failed = max(0, now.failed - before.failed)
    return ReferenceActivity(
        reference_id=now.reference_id,
        intact=now.intact,
        anomalous=now.anomalous,
        failed=now.failed,
        images_per_s=(intact + anomalous + failed) / interval_s,
        anomalous_share=anomalous / (intact + anomalous) if intact + anomalous else None,
    )


def _added(earlier: DurationHistogram, later: DurationHistogram) -> DurationHistogram:
    if earlier.bounds_s != later.bounds_s:
        return later
    counts = tuple(now - before for now, before in zip(later.counts, earlier.counts, strict=True))
    return DurationHistogram(later.bounds_s, counts, later.sum_s - earlier.sum_s)


def percentile_ms(histogram: DurationHistogram, percentile: float) -> float | None:
    """The percentile, interpolated in its class; None: there are no durations. At most the highest bound."""
    rank = sum(histogram.counts) * percentile / 100
    if not rank:
        return None
    edges: Sequence[float] = (0.0, *histogram.bounds_s, histogram.bounds_s[-1])
    below = 0
    for index, count in enumerate(histogram.counts):
        if count and below + count >= rank:
            low, high = edges[index], edges[index + 1]
            return 1000 * (low + (high - low) * (rank - below) / count)
        below += count
    return 1000 * edges[-1]
