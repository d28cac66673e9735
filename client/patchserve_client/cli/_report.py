"""A result as cells of a table and as JSON."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime
from typing import Any, TypeAlias

from patchserve_client import InferenceResult, PatchserveError
from patchserve_client._verdicts import ratio_text, verdict_word
from patchserve_client.cli._failures import message_of
from patchserve_client.cli._output import Column
from patchserve_client.cli._verdict_options import VerdictOptions

Failure: TypeAlias = PatchserveError | OSError
Outcome: TypeAlias = InferenceResult | Failure

COLUMNS = (
    "time",
    "name",
    "sequence",
    "capture_time",
    "verdict",
    "ratio",
    "threshold",
    "score",
    "raw_score",
    "raw_threshold",
    "anomalous_area_percentage",
    "regions",
    "reference_id",
    "reference_revision",
    "total_ms",
    "error",
)
"""Of a result as CSV, in files and on stdout."""

COLORS = {"intact": "green", "anomalous": "red", "error": "yellow", "dropped": "yellow"}


def verdict_of(outcome: Outcome) -> str:
    """A key of COLORS."""
    if isinstance(outcome, InferenceResult):
        return verdict_word(outcome.anomaly)
    return "dropped" if isinstance(outcome, PatchserveError) and outcome.reason == "FRAME_DROPPED" else "error"


def columns(verdicts: VerdictOptions) -> tuple[Column, ...]:
    """The columns of a result."""
    return (
        Column("verdict", 9),
        Column("x threshold", 11, right=True),
        Column("regions", 7, right=True),
        *((Column("damage", 7, right=True),) if verdicts.damage else ()),
        Column("ms", 7, right=True),
    )


def cells(outcome: Outcome, verdict: str, verdicts: VerdictOptions) -> list[str]:
    """The cells of `columns`. A failure has only two: the verdict and the error."""
    if not isinstance(outcome, InferenceResult):
        return [verdict, error_text(outcome)]
    # Most of the time in the queue is for the other images of this command.
    inspection_ms = outcome.timing.total_ms - outcome.timing.queue_ms
    damage = [f"{outcome.damage.damage_percentage:.1f} %"] if verdicts.damage else []
    return [
        verdict,
        ratio_text(outcome.anomaly, verdicts.threshold),
        "-" if verdicts.max_regions == 0 else str(len(outcome.regions)),
        *damage,
        f"{inspection_ms:.1f}",
    ]


def as_json(outcome: Outcome, verdict: str, verdicts: VerdictOptions) -> dict[str, Any]:
    """The keys that every JSON output has for one image. An image is anomalous if `ratio` is above `threshold`."""
    if not isinstance(outcome, InferenceResult):
        return {"verdict": verdict, "error": _error_json(outcome)}
    ratio = outcome.anomaly.ratio * verdicts.threshold
    damage = {"damage": dataclasses.asdict(outcome.damage)} if verdicts.damage else {}
    return {
        "verdict": verdict,
        "ratio": ratio if math.isfinite(ratio) else None,
        "threshold": verdicts.threshold,
        "reference_id": outcome.reference_id,
        "reference_revision": outcome.reference_revision,
        "anomaly": dataclasses.asdict(outcome.anomaly),
        **damage,
        "regions": [dataclasses.asdict(region) for region in outcome.regions],
        "timing": dataclasses.asdict(outcome.timing),
    }


def frame_event(
    name: str, outcome: Outcome, verdicts: VerdictOptions, sequence: int | None, capture_time: datetime | None
) -> dict[str, Any]:
    """The outcome of a frame of a stream as JSON."""
    return {
        "event": "frame",
        "sequence": sequence,
        "frame_id": name,
        "capture_time": capture_time,
        **as_json(outcome, verdict_of(outcome), verdicts),
    }


def csv_cells(outcome: Outcome, verdict: str, threshold: float) -> dict[str, object]:
    """The cells of COLUMNS that are known of the outcome. An image is anomalous if `ratio` is above `threshold`."""
    if not isinstance(outcome, InferenceResult):
        return {"verdict": verdict, "error": error_text(outcome)}
    anomaly = outcome.anomaly
    return {
        "verdict": verdict,
        "ratio": f"{anomaly.ratio * threshold:.6f}",
        "threshold": f"{threshold:g}",
        "score": f"{anomaly.score:.6f}",
        "raw_score": f"{anomaly.raw_score:.6f}",
        "raw_threshold": f"{anomaly.raw_threshold:.6f}",
        "anomalous_area_percentage": f"{anomaly.anomalous_area_percentage:.4f}",
        "regions": len(outcome.regions),
        "reference_id": outcome.reference_id,
        "reference_revision": outcome.reference_revision,
        "total_ms": f"{outcome.timing.total_ms:.3f}",
    }


def error_text(error: Failure) -> str:
    """The error in one line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{message_of(error)} ({error.reason or error.code})"


def _error_json(error: Failure) -> dict[str, Any]:
    if isinstance(error, OSError):
        return {"code": "OS_ERROR", "reason": type(error).__name__, "message": error_text(error)}
    return {"code": error.code, "reason": error.reason, "message": error.message}
