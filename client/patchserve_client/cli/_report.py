"""A result as cells of a table and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeAlias

from patchserve_client import InferenceResult, PatchserveError
from patchserve_client._verdicts import ratio_text, verdict_word
from patchserve_client.cli._failures import message_of
from patchserve_client.cli._output import Column
from patchserve_client.cli._verdict_options import VerdictOptions

Failure: TypeAlias = PatchserveError | OSError
Outcome: TypeAlias = InferenceResult | Failure

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


def error_text(error: Failure) -> str:
    """The error in one line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{message_of(error)} ({error.reason or error.code})"


def _error_json(error: Failure) -> dict[str, Any]:
    if isinstance(error, OSError):
        return {"code": "OS_ERROR", "reason": type(error).__name__, "message": error_text(error)}
    return {"code": error.code, "reason": error.reason, "message": error.message}
