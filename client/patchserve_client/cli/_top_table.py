"""What `patchserve top` shows: cells of two tables, and records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final

from patchserve_client import ReferenceInfo
from patchserve_client.top.activity import Activity, ReferenceActivity
from patchserve_client.top.watched_server import Sample, State

COLORS: Final = {State.SERVING: "green", State.UNAVAILABLE: "yellow", State.AWAY: "red", State.FAILED: "red"}
SERVER_TITLES: Final = (
    "server",
    "state",
    "images/s",
    "in progress",
    "streams",
    "loads",
    "wait p99",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "rejected/s",
    "failed/s",
)
REFERENCE_TITLES: Final = ("reference", "images/s", "anomalous", "of", "failed", "drift", "server")
_NOTHING: Final = "-"


def server_cells(sample: Sample) -> list[str]:
    """The cells of SERVER_TITLES. Of a server without an answer, the message takes the place of the figures."""
    if sample.stats is None or sample.info is None:
        return [sample.server, sample.state, sample.message]
    stats = sample.stats
    images, *others = _rates(sample.activity)
    return [
        sample.server,
        sample.state,
        images,
        f"{stats.images_in_progress}/{sample.info.limits.max_pending_images}",
        str(stats.streams_open),
        str(stats.loads_in_progress),
        *others,
    ]


def _rates(now: Activity | None) -> list[str]:
    if now is None:
        return [_NOTHING] * 7
    latencies_ms = (now.wait_p99_ms, now.inspection_p50_ms, now.inspection_p90_ms, now.inspection_p99_ms)
    return list(map(number, (now.images_per_s, *latencies_ms, now.rejected_per_s, sum(now.failures_per_s.values()))))


def reference_rows(samples: Sequence[Sample]) -> list[list[str]]:
    """The cells of REFERENCE_TITLES for every reference of every server: those with the most images first."""
    rows = [row for sample in samples for row in _references_of(sample)]
    rows.sort(key=lambda row: (-(row[0].images_per_s if row[0] else 0.0), row[1], row[3]))
    return [_reference_cells(*row) for row in rows]


def _references_of(sample: Sample) -> Iterator[tuple[ReferenceActivity | None, str, ReferenceInfo | None, str]]:
    known = {one.reference_id: one for one in sample.references}
    seen = {one.reference_id: one for one in sample.activity.references} if sample.activity else {}
    for reference_id in {**known, **seen}:
        yield seen.get(reference_id), reference_id, known.get(reference_id), sample.server


def _reference_cells(
    seen: ReferenceActivity | None, reference_id: str, known: ReferenceInfo | None, server: str
) -> list[str]:
    cells = [_NOTHING] * 4
    if seen is not None:
        share = seen.anomalous_share
        cells = [
            number(seen.images_per_s),
            _NOTHING if share is None else f"{100 * share:.1f} %",
            f"{seen.anomalous}/{seen.anomalous + seen.intact}",
            str(seen.failed),
        ]
    return [reference_id or "(all others)", *cells, drift_of(known) or _NOTHING, server]


def drift_of(reference: ReferenceInfo | None) -> str | None:
    """The state of the drift; None: not known."""
    drift = None if reference is None else reference.drift
    return None if drift is None else (drift.state or "unknown").replace("_", " ")


def failures_line(sample: Sample) -> str | None:
    """The most frequent failures of a server; None: there are none."""
    failures = sample.activity.failures_per_s if sample.activity else {}
    most = sorted(failures.items(), key=lambda item: -item[1])[:4]
    return f"{sample.server}: " + ", ".join(f"{reason} {number(rate)}/s" for reason, rate in most) if most else None


def store_line(sample: Sample) -> str | None:
    """Says that a server cannot reach its store; None: it can."""
    store = sample.info.store if sample.info else None
    if store is None or not store.shared or store.reachable:
        return None
    return f"{sample.server}: cannot reach its store {store.url}, in step with it {store.synced_age_s:.0f} s ago"


def number(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return _NOTHING
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def record(sample: Sample) -> dict[str, Any]:
    """The sample for programs. The fields do not depend on the answer."""
    info, stats = sample.info, sample.stats
    names = [field.name for field in dataclasses.fields(Activity) if field.name != "references"]
    now = dataclasses.asdict(sample.activity) if sample.activity else {}
    drifts = {one.reference_id: drift_of(one) for one in sample.references}
    return {
        "time": sample.time,
        "server": sample.server,
        "state": sample.state,
        "message": sample.message,
        **{name: getattr(info, name, None) for name in ("version", "backbone", "device", "precision")},
        **{name: getattr(stats, name, None) for name in _STATS},
        "max_pending_images": info.limits.max_pending_images if info else None,
        "store_reachable": info.store.reachable if info else None,
        **{name: now.get(name) for name in names},
        "references": [{**one, "drift": drifts.get(one["reference_id"])} for one in now.get("references", ())],
    }


_STATS: Final = (
    "process_id",
    "processes",
    "start_time",
    "uptime_s",
    "calls_in_progress",
    "images_in_progress",
    "loads_in_progress",
    "streams_open",
)
