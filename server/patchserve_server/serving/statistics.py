"""Counts what happens, for GetServerStats: always, and in bounded memory."""

from __future__ import annotations

import bisect
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Final

from patchserve_server.domain.call_events import CallEnd, CallInfo, FrameEnd, FrameInfo
from patchserve_server.domain.events import Events, ImageInspected, InspectionFailed
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import ImageProcessed, Wait

_MOST_REFERENCES: Final = 100
_SHORTEST_S, _CLASSES_PER_DOUBLING, _CLASSES = 0.0005, 4, 72  # up to 110 s


class Histogram:
    """Durations by classes, each of which ends a fifth above the one before."""

    BOUNDS_S: ClassVar[tuple[float, ...]] = tuple(
        _SHORTEST_S * 2 ** (index / _CLASSES_PER_DOUBLING) for index in range(_CLASSES)
    )

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count a duration."""
        self.counts[bisect.bisect_left(self.BOUNDS_S, duration_s)] += 1
        self.sum_s += duration_s


@dataclass(slots=True)
class OutcomeCounts:
    """What became of the images of one reference."""

    intact: int = 0
    anomalous: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """All images."""
        return self.intact + self.anomalous + self.failed


@dataclass(eq=False)
class ServerStatistics(Events):
    """Counts since the start of this process. `processes`: how many answer calls."""

    processes: int = 1
    process_id: str = field(default_factory=lambda: secrets.token_hex(8))
    start_time: datetime = field(default_factory=lambda: datetime.now(UTC))
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)  # by method and code
    failures: Counter[str] = field(default_factory=Counter)  # by reason
    wait: Histogram = field(default_factory=Histogram)
    inspection: Histogram = field(default_factory=Histogram)
    references: dict[ReferenceId, OutcomeCounts] = field(default_factory=dict)
    other: OutcomeCounts = field(default_factory=OutcomeCounts)  # of references beyond the first ones
    streams_open: int = 0
    _started_s: float = field(default_factory=time.monotonic)

    @property
    def uptime_s(self) -> float:
        """How long this has been counting."""
        return time.monotonic() - self._started_s

    def call_began(self, call: CallInfo) -> None:
        self.streams_open += call.is_stream

    def call_ended(self, call: CallInfo, end: CallEnd) -> None:
        self.streams_open -= call.is_stream
        self.calls[call.method_name, end.code] += 1
        if end.reason:
            self.failures[end.reason] += 1

    def frame_ended(self, frame: FrameInfo, end: FrameEnd) -> None:  # noqa: ARG002 - the port's
        if end.reason:
            self.failures[end.reason] += 1

    def processed(self, event: ImageProcessed) -> None:
        self.wait.add(sum(step.duration_s for step in event.steps if isinstance(step.what, Wait)))
        self.inspection.add(sum(step.duration_s for step in event.steps))

    def inspected(self, event: ImageInspected) -> None:
        counts = self._of(event.inspection.reference_id)
        if event.inspection.verdict.anomaly.is_anomalous:
            counts.anomalous += 1
        else:
            counts.intact += 1

    def failed(self, event: InspectionFailed) -> None:
        self._of(event.reference_id).failed += 1

    def reference_changed(self, reference_id: ReferenceId, reference: ReferenceInfo | None) -> None:
        if reference is None:
            self.references.pop(reference_id, None)

    def _of(self, reference_id: ReferenceId) -> OutcomeCounts:
        if (counts := self.references.get(reference_id)) is not None:
            return counts
        if len(self.references) >= _MOST_REFERENCES:
            return self.other
        return self.references.setdefault(reference_id, OutcomeCounts())
