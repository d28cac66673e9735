"""A result as cells of a table and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

from patchserve_client import InferenceResult, PatchserveError
from patchserve_client.cli._output import Column

Failure: TypeAlias = PatchserveError | OSError
Outcome: TypeAlias = InferenceResult | Failure

RESULT_COLUMNS = (
    Column("verdict", 9),
    Column("score", 5, right=True),
    Column("raw/threshold", 13, right=True),
    Column("damage", 7, right=True),
    Column("regions", 7, right=True),
    Column("ms", 7, right=True),
)
COLORS = {"intact": "green", "anomalous": "red", "error": "yellow", "dropped": "yellow"}


def verdict_of(outcome: Outcome) -> str:
    """A key of COLORS."""
    if isinstance(outcome, InferenceResult):
        return "anomalous" if outcome.anomaly.is_anomalous else "intact"
    return "dropped" if isinstance(outcome, PatchserveError) and outcome.reason == "FRAME_DROPPED" else "error"


def cells(outcome: Outcome, verdict: str) -> list[str]:
    """The cells of RESULT_COLUMNS. A failure has only two: the verdict and the error."""
    if not isinstance(outcome, InferenceResult):
        return [verdict, error_text(outcome)]
    anomaly = outcome.anomaly
    return [
        verdict,
        f"{anomaly.score:.3f}",
        f"{anomaly.raw_score:.2f}/{anomaly.raw_threshold:.2f}",
        f"{outcome.damage.damage_percentage:.1f} %",
        str(len(outcome.regions)),
        f"{outcome.timing.total_ms:.1f}",
    ]


def as_json(outcome: Outcome, verdict: str) -> dict[str, Any]:
    """The keys that every JSON output has for one image."""
    if not isinstance(outcome, InferenceResult):
        return {"verdict": verdict, "error": _error_json(outcome)}
    return {
        "verdict": verdict,
        "reference_id": outcome.reference_id,
        "reference_revision": outcome.reference_revision,
        "anomaly": dataclasses.asdict(outcome.anomaly),
        "damage": dataclasses.asdict(outcome.damage),
        "regions": [dataclasses.asdict(region) for region in outcome.regions],
        "timing": dataclasses.asdict(outcome.timing),
    }


def error_text(error: Failure) -> str:
    """The error in one line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{error.message} ({error.reason or error.code})"


def _error_json(error: Failure) -> dict[str, Any]:
    if isinstance(error, OSError):
        return {"code": "OS_ERROR", "reason": type(error).__name__, "message": error_text(error)}
    return {"code": error.code, "reason": error.reason, "message": error.message}
