"""Counts what happens, for GetServerStats: always, and in bounded memory."""

from __future__ import annotations

import bisect
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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

    def __add__(self, other: OutcomeCounts) -> OutcomeCounts:
        return OutcomeCounts(self.intact + other.intact, self.anomalous + other.anomalous, self.failed + other.failed)


@dataclass(frozen=True, slots=True)
class Counts:
    """What processes that answer calls have counted, each since its start."""

    process_ids: tuple[str, ...]
    start_time: datetime  # of the first
    uptime_s: float  # of the first
    streams_open: int
    calls: tuple[tuple[str, str, int], ...]  # method, code, count
    failures: tuple[tuple[str, int], ...]  # reason, count
    wait_counts: tuple[int, ...]  # see Histogram
    wait_sum_s: float
    inspection_counts: tuple[int, ...]
    inspection_sum_s: float
    references: tuple[tuple[str, OutcomeCounts], ...]  # by id; "": those beyond the first ones

    @property
    def process_id(self) -> str:
        """Another one if the processes are others."""
        if len(self.process_ids) == 1:
            return self.process_ids[0]
        return hashlib.sha256(" ".join(sorted(self.process_ids)).encode()).hexdigest()[:16]


def summed(counts: Sequence[Counts]) -> Counts:
    """The counts of several processes together."""
    if len(counts) == 1:
        return counts[0]
    calls, failures = Counter[tuple[str, str]](), Counter[str]()
    references: dict[str, OutcomeCounts] = {}
    for each in counts:
        calls.update({(method, code): count for method, code, count in each.calls})
        failures.update(dict(each.failures))
        for reference_id, outcomes in each.references:
            references[reference_id] = references.get(reference_id, OutcomeCounts()) + outcomes
    if len(references) > _MOST_REFERENCES + 1:  # each process has a choice of its own
        rarest = sorted(references.keys() - {""}, key=lambda each: (-references[each].total, each))[_MOST_REFERENCES:]
        for reference_id in rarest:
            references[""] = references.get("", OutcomeCounts()) + references.pop(reference_id)
    return Counts(
        process_ids=tuple(process_id for each in counts for process_id in each.process_ids),
        start_time=min(each.start_time for each in counts),
        uptime_s=max(each.uptime_s for each in counts),
        streams_open=sum(each.streams_open for each in counts),
        calls=tuple((method, code, count) for (method, code), count in sorted(calls.items())),
        failures=tuple(sorted(failures.items())),
        wait_counts=tuple(map(sum, zip(*(each.wait_counts for each in counts), strict=True))),
        wait_sum_s=sum(each.wait_sum_s for each in counts),
        inspection_counts=tuple(map(sum, zip(*(each.inspection_counts for each in counts), strict=True))),
        inspection_sum_s=sum(each.inspection_sum_s for each in counts),
        references=tuple(sorted(references.items())),
    )


@dataclass(eq=False)
class ServerStatistics(Events):
    """Counts since the start of this process."""

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

    def counts(self) -> Counts:
        """What was counted until now."""
        references = [(str(reference_id), replace(counts)) for reference_id, counts in self.references.items()]
        if self.other.total:
            references.append(("", replace(self.other)))
        return Counts(
            process_ids=(self.process_id,),
            start_time=self.start_time,
            uptime_s=self.uptime_s,
            streams_open=self.streams_open,
            calls=tuple((method, code, count) for (method, code), count in sorted(self.calls.items())),
            failures=tuple(sorted(self.failures.items())),
            wait_counts=tuple(self.wait.counts),
            wait_sum_s=self.wait.sum_s,
            inspection_counts=tuple(self.inspection.counts),
            inspection_sum_s=self.inspection.sum_s,
            references=tuple(sorted(references, key=lambda each: each[0])),
        )

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
