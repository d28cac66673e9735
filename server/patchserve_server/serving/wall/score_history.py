"""The latest scores of each reference: numbers only, in bounded memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.events import ImageInspected
from patchserve_server.domain.reference import Calibration
from patchserve_server.domain.reference_id import ReferenceId, Revision

MAX_SCORES: Final = 500  # of each reference
MAX_REFERENCES: Final = 64  # those inspected last


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one inspection. Scores of different banks are not comparable; see `calibration`."""

    time_s: float  # since the epoch
    revision: Revision
    raw_score: float
    raw_threshold: float
    total_ms: float
    calibration: Calibration  # of the bank


class ScoreHistory:
    """The last scores of the references inspected last."""

    def __init__(self, max_scores: int = MAX_SCORES, max_references: int = MAX_REFERENCES) -> None:
        self._max_scores = max_scores
        self._max_references = max_references
        self._scores: dict[ReferenceId, deque[Score]] = {}  # the reference inspected last comes last

    def add(self, event: ImageInspected, time_s: float) -> None:
        inspection = event.inspection
        scores = self._scores.pop(inspection.reference_id, None)
        if scores is None:
            scores = deque[Score](maxlen=self._max_scores)
            if len(self._scores) >= self._max_references:
                del self._scores[next(iter(self._scores))]
        self._scores[inspection.reference_id] = scores
        anomaly = inspection.verdict.anomaly
        score = Score(
            time_s,
            inspection.reference_revision,
            anomaly.raw_score,
            anomaly.raw_threshold,
            inspection.timing.total_ms,
            event.calibration,
        )
        scores.append(score)

    def scores(self, reference_id: ReferenceId) -> tuple[Score, ...]:
        """The last scores of a reference, the oldest first."""
        return tuple(self._scores.get(reference_id, ()))

    def references(self) -> list[ReferenceId]:
        """The references that have scores, the one inspected last first."""
        return list(reversed(self._scores))

    def forget(self, reference_id: ReferenceId) -> None:
        self._scores.pop(reference_id, None)
