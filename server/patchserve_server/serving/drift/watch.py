"""Watches the recent scores of each reference for drift, in bounded memory."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from patchserve_server.domain.drift import UNKNOWN, Drift, DriftState
from patchserve_server.domain.readings import Reading
from patchserve_server.domain.reference import Calibration, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.drift.comparison import (
    MIN_RECENT,
    WINDOW,
    Comparison,
    compare,
    is_comparable,
    state_after,
)

MAX_REFERENCES: Final = 1000  # those inspected last
COMPARED_EVERY: Final = 16  # images

_WORDS: Final = {
    DriftState.TOO_FEW_IMAGES: "too few images to tell",
    DriftState.NONE: "recent images are like those of the reference",
    DriftState.MORE_DAMAGE: "more images than before are anomalous; the others are like those of the reference",
    DriftState.SCENE_CHANGED: "most recent images differ from those of the reference: light, camera or product",
}

_READINGS: Final = {DriftState.NONE: 0.0, DriftState.MORE_DAMAGE: 0.5, DriftState.SCENE_CHANGED: 1.0}

_log = logging.getLogger(__name__)

Told = Callable[[ReferenceId, Revision, Drift], None]


@dataclass(slots=True, eq=False)
class _Recent:
    """The recent scores of one revision."""

    revision: Revision
    calibration: Calibration
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    images: int = 0  # since the revision is in use
    drift: Drift = UNKNOWN
    found: DriftState = DriftState.NONE  # by the last comparison
    is_comparing: bool = False
    is_due: bool = False  # another comparison, after the one that runs


class DriftWatch:
    """The recent scores of the references inspected last, and what they say. Lives on the event loop.

    Args:
        find: the description of the current revision of a reference.
        executor: compares, off the event loop.
        told: called on the event loop with the outcome of each comparison; it returns at once and raises nothing.
    """

    def __init__(
        self,
        find: Callable[[ReferenceId], ReferenceInfo | None],
        executor: Executor,
        told: Told = lambda _id, _revision, _drift: None,
    ) -> None:
        self._find = find
        self._executor = executor
        self._told = told
        self._recent: dict[ReferenceId, _Recent] = {}  # the reference inspected last comes last
        self._comparing: set[asyncio.Task[None]] = set()

    def add(self, reference_id: ReferenceId, revision: Revision, raw_score: float) -> None:
        """Takes the finite score of an inspection. Of a revision that is no longer current, nothing is kept."""
        recent = self._recent.get(reference_id)
        if recent is None or recent.revision != revision:
            info = self._find(reference_id)
            if info is None or info.revision != revision:
                return
            if recent is not None:
                self._told(reference_id, revision, UNKNOWN)
            recent = _Recent(revision, info.calibration)
        self._remember(reference_id, recent)
        recent.scores.append(raw_score)
        recent.images += 1
        if recent.images % COMPARED_EVERY == 0:
            if recent.is_comparing:
                recent.is_due = True
            else:
                self._begin_to_compare(reference_id, recent)

    def _remember(self, reference_id: ReferenceId, recent: _Recent) -> None:
        self._recent.pop(reference_id, None)
        if len(self._recent) >= MAX_REFERENCES:
            del self._recent[next(iter(self._recent))]
        self._recent[reference_id] = recent

    def drift_of(self, reference: ReferenceInfo) -> Drift:
        """What is known of the current revision of a reference."""
        recent = self._recent.get(reference.reference_id)
        return UNKNOWN if recent is None or recent.revision != reference.revision else recent.drift

    def known(self) -> Iterator[tuple[ReferenceId, Revision, Drift]]:
        """What all comparisons have said."""
        for reference_id, recent in self._recent.items():
            yield reference_id, recent.revision, recent.drift

    def readings(self) -> Iterator[Reading]:
        """For whoever watches the server: 1, another scene; 0.5, more damage; 0, neither. Any thread may ask."""
        for reference_id, recent in self._recent.copy().items():
            info, value = self._find(reference_id), _READINGS.get(recent.drift.state)
            if value is not None and info is not None and info.revision == recent.revision:
                yield Reading("reference_drift", value, (reference_id,))

    def _begin_to_compare(self, reference_id: ReferenceId, recent: _Recent) -> None:
        if len(recent.scores) < MIN_RECENT or not is_comparable(recent.calibration):
            self._learn(reference_id, recent, len(recent.scores), None)
            return
        recent.is_comparing, recent.is_due = True, False
        # Of no call: what it finds is about the images of many.
        task = asyncio.create_task(self._compare(reference_id, recent), context=Context())
        self._comparing.add(task)
        task.add_done_callback(self._comparing.discard)

    async def _compare(self, reference_id: ReferenceId, recent: _Recent) -> None:
        scores = tuple(recent.scores)
        try:
            comparing = self._executor.submit(compare, scores, recent.calibration)
        except RuntimeError:  # the executor is shut down, and the server ends: nobody asks any more
            return
        try:
            compared = await asyncio.wrap_future(comparing)
        finally:
            recent.is_comparing = False
        if self._recent.get(reference_id) is recent:
            self._learn(reference_id, recent, len(scores), compared)
            if recent.is_due:
                self._begin_to_compare(reference_id, recent)

    def _learn(self, reference_id: ReferenceId, recent: _Recent, count: int, compared: Comparison | None) -> None:
        before = recent.drift
        if compared is None:
            recent.drift = Drift(DriftState.TOO_FEW_IMAGES, count)
        else:
            told = DriftState.NONE if before.state is DriftState.TOO_FEW_IMAGES else before.state
            state, recent.found = state_after(told, recent.found, compared.state), compared.state
            is_new = state is not before.state
            since = datetime.now(UTC) if is_new else before.since
            recent.drift = Drift(state, count, compared.shift, compared.outlier_share, since)
            if is_new:
                _log_change(reference_id, before.state, recent.drift)
        self._told(reference_id, recent.revision, recent.drift)


def _log_change(reference_id: ReferenceId, before: DriftState, drift: Drift) -> None:
    is_news = drift.state is not DriftState.NONE or before is not DriftState.TOO_FEW_IMAGES
    level = logging.WARNING if drift.state is not DriftState.NONE else logging.INFO
    _log.log(
        level if is_news else logging.DEBUG,
        "Drift of reference %r: %s (the last %d images)",
        str(reference_id),
        _WORDS[drift.state],
        drift.image_count,
    )
