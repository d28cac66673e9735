"""Counts what happens."""

from __future__ import annotations

from typing import Final

from patchserve_server.domain.call_events import CallEnd, CallInfo, FrameEnd, FrameInfo, current_call
from patchserve_server.domain.events import Events, ImageInspected
from patchserve_server.domain.trace_parent import is_recorded, trace_id_of
from patchserve_server.domain.work_events import (
    BatchScored,
    ImageProcessed,
    LoadEnded,
    ReferenceOpened,
    Stage,
    StoreUsed,
)
from patchserve_server.telemetry.metrics.instruments import Instruments
from patchserve_server.telemetry.metrics.reference_names import ReferenceNames

_REJECTIONS: Final = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_STORE_OUTCOMES: Final = {
    "REFERENCE_NOT_FOUND": "absent",
    "REVISION_NOT_KEPT": "absent",
    "REFERENCE_CHANGED": "changed",
}
_CANCELLED: Final = "CANCELLED"
_VERDICTS: Final = ("intact", "anomalous")


class MetricsListener(Events):
    """Counts what happens.

    Args:
        instruments: that count.
        names: of references.
    """

    def __init__(self, instruments: Instruments, names: ReferenceNames) -> None:
        self._count = instruments
        self._names = names

    def call_began(self, call: CallInfo) -> None:
        self._count.rpc_in_flight.inc()
        if call.is_stream:
            self._count.streams_open.inc()

    def call_ended(self, call: CallInfo, end: CallEnd) -> None:
        exemplar = _exemplar(call)
        self._count.rpc_in_flight.dec()
        if call.is_stream:
            self._count.streams_open.dec()
        self._count.rpc_requests.of(call.face, call.method_name, end.code).inc(1, exemplar)
        self._count.rpc_duration.of(call.face, call.method_name).observe(end.duration_s, exemplar)
        if end.code in _REJECTIONS:
            self._count.rejected.of(end.reason).inc(1, exemplar)
        elif end.code == _CANCELLED:
            self._count.cancelled.of().inc(1, exemplar)

    def frame_ended(self, frame: FrameInfo, end: FrameEnd) -> None:  # noqa: ARG002 - all frames count alike
        self._count.frames.of(end.result, end.reason).inc(1, _exemplar(current_call.get()))

    def processed(self, event: ImageProcessed) -> None:
        exemplar, waited_s, took_s = _exemplar(current_call.get()), 0.0, dict[Stage, float]()
        for step in event.steps:
            if isinstance(step.what, Stage):
                took_s[step.what] = took_s.get(step.what, 0.0) + step.duration_s  # one file is decoded in two places
            else:
                waited_s += step.duration_s
        for stage, duration_s in took_s.items():
            self._count.stage_duration.of(stage).observe(duration_s, exemplar)
        self._count.queue_wait.of("frame" if event.is_frame else "call").observe(waited_s, exemplar)

    def inspected(self, event: ImageInspected) -> None:
        exemplar, anomaly = _exemplar(current_call.get()), event.inspection.verdict.anomaly
        reference = self._names.label(event.inspection.reference_id)
        by_verdict = [self._count.verdicts.of(reference, verdict) for verdict in _VERDICTS]  # both exist from now on
        by_verdict[anomaly.is_anomalous].inc(1, exemplar)
        self._count.anomaly_score.of(reference).observe(anomaly.score, exemplar)

    def device_fell_back(self, stage: Stage) -> None:
        self._count.device_fallbacks.of(stage).inc(1, _exemplar(current_call.get()))

    def batch_scored(self, event: BatchScored) -> None:
        self._count.batch_images.of().observe(event.image_count)

    def load_ended(self, event: LoadEnded) -> None:
        mode, exemplar = "append" if event.appends else "replace", _exemplar(current_call.get())
        self._count.load_duration.of(mode, _outcome(event.reason)).observe(event.duration_s, exemplar)
        self._count.queue_wait.of("load").observe(event.waited_s, exemplar)

    def reference_opened(self, event: ReferenceOpened) -> None:
        self._count.load_duration.of("open", _outcome(event.reason)).observe(event.duration_s)

    def store_used(self, event: StoreUsed) -> None:
        outcome = _STORE_OUTCOMES.get(event.reason) or _outcome(event.reason)
        self._count.store_duration.of(event.operation, outcome).observe(event.duration_s)


def _exemplar(call: CallInfo | None) -> dict[str, str] | None:
    """The trace in which this call can be seen, if there is one."""
    if call is None or not is_recorded(call.trace_parent):
        return None
    return {"trace_id": trace_id_of(call.trace_parent)}


def _outcome(reason: str) -> str:
    if not reason:
        return "ok"
    return "cancelled" if reason == _CANCELLED else "error"
