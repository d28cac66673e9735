"""Makes spans of what happens: one for each call and each frame, one below it for each step, one for each batch."""

from __future__ import annotations

import time
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from patchserve_server.domain.call_events import (
    CallEnd,
    CallInfo,
    FrameEnd,
    FrameInfo,
    FrameResult,
    RelayedCall,
    Work,
    current_work,
)
from patchserve_server.domain.events import Events
from patchserve_server.domain.work_events import (
    BatchScored,
    ImageProcessed,
    LoadEnded,
    ReferenceOpened,
    StoreUsed,
    Wait,
)
from patchserve_server.telemetry import span_attributes as names

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACE_PARENT: Final = "traceparent"
_HEADERS: Final = (_TRACE_PARENT, "tracestate")
_MAX_HEADER: Final = 512  # characters, as W3C Trace Context asks for
_FRAME: Final = "frame"
_QUEUE: Final = "queue"
_BATCH: Final = "batch"


class _Timed(Protocol):
    """What has taken time, by time.perf_counter."""

    @property
    def started_at_s(self) -> float: ...

    @property
    def duration_s(self) -> float: ...


class SpanEvents(Events):
    """Tells a tracer what happens.

    The steps of an image are told when it is done, with their times, so their spans are made then.

    Args:
        tracer: OpenTelemetry's.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        # Weak: a batch that has ended still knows its calls, which may have ended before.
        self._spans: WeakKeyDictionary[CallInfo | FrameInfo, Span] = WeakKeyDictionary()

    def call_began(self, call: CallInfo) -> None:
        span = self._tracer.start_span(
            names.method_of(call), _sent_context(call), SpanKind.SERVER, names.at_start(call)
        )
        self._spans[call] = span
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, set_span_in_context(span, Context()))
        call.trace_parent = headers.get(_TRACE_PARENT, "")

    def call_ended(self, call: CallInfo, end: CallEnd) -> None:
        if (span := self._spans.get(call)) is None:
            return
        if span.is_recording():
            span.set_attributes(names.at_end(call, end))
            if end.code in names.SERVER_ERRORS:
                span.set_status(StatusCode.ERROR, end.reason)
        span.end()

    def frame_began(self, frame: FrameInfo) -> None:
        if (parent := self._recording(current_work())) is not None:
            attributes = names.of_frame(frame)
            self._spans[frame] = self._tracer.start_span(_FRAME, set_span_in_context(parent), attributes=attributes)

    def frame_ended(self, frame: FrameInfo, end: FrameEnd) -> None:
        if (span := self._spans.get(frame)) is None:
            return
        span.set_attribute(names.FRAME_RESULT, end.result)
        if end.reason:
            span.set_attribute(names.REASON, end.reason)
        if end.result is FrameResult.FAILED:
            span.set_attribute(names.ERROR_TYPE, end.reason)
            span.set_status(StatusCode.ERROR, end.reason)
        span.end()

    def processed(self, event: ImageProcessed) -> None:
        if (parent := self._recording(current_work())) is None:
            return
        for step in event.steps:
            if isinstance(step.what, Wait):
                self._past(parent, _QUEUE, step, {names.WAIT: step.what})
            else:
                self._past(parent, step.what, step)

    def batch_scored(self, event: BatchScored) -> None:
        spans = map(self._span_of, event.works)
        links = [Link(span.get_span_context()) for span in spans if span is not None]
        if not links:
            return
        attributes = {names.BATCH_IMAGES: event.image_count, names.BATCH_REFERENCES: event.reference_count}
        start_ns, end_ns = _epoch_ns(event)
        span = self._tracer.start_span(_BATCH, Context(), attributes=attributes, links=links, start_time=start_ns)
        if event.failed:
            span.set_status(StatusCode.ERROR)
        span.end(end_ns)

    def load_ended(self, event: LoadEnded) -> None:
        if (parent := self._recording(current_work())) is None:
            return
        load = self._past(parent, "load", event, {names.REFERENCE: event.reference_id}, event.reason)
        for step in event.steps:
            self._past(load, step.stage.name.lower(), step)

    def reference_opened(self, event: ReferenceOpened) -> None:
        if (parent := self._recording(current_work())) is not None:
            self._past(parent, "open reference", event, {names.REFERENCE: event.reference_id}, event.reason)

    def store_used(self, event: StoreUsed) -> None:
        if (parent := self._recording(current_work())) is not None:
            self._past(parent, f"store {event.operation}", event, reason=event.reason)

    def _span_of(self, work: Work) -> Span | None:
        """The span of a call or a frame. That of a relayed call is in another process."""
        if isinstance(work, RelayedCall):
            span = get_current_span(_sent_context(work))
            return span if span.get_span_context().is_valid else None
        return None if work is None else self._spans.get(work)

    def _recording(self, work: Work) -> Span | None:
        """The same, if it is recorded."""
        span = self._span_of(work)
        return span if span is not None and span.get_span_context().trace_flags.sampled else None

    def _past(
        self, parent: Span, name: str, event: _Timed, attributes: names.Attributes | None = None, reason: str = ""
    ) -> Span:
        """A span below another one, of what has ended."""
        start_ns, end_ns = _epoch_ns(event)
        context = set_span_in_context(parent, Context())
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=start_ns)
        if reason:
            span.set_attribute(names.ERROR_TYPE, reason)
            span.set_status(StatusCode.ERROR, reason)
        span.end(end_ns)
        return span


def _sent_context(call: CallInfo) -> Context:
    """The context that the caller has sent; empty: none, or none that is valid."""
    headers = {name: value for name in _HEADERS if 0 < len(value := call.header(name)) <= _MAX_HEADER}
    return _PROPAGATOR.extract(headers, Context()) if _TRACE_PARENT in headers else Context()


def _epoch_ns(event: _Timed) -> tuple[int, int]:
    """When it began and ended, in nanoseconds since 1970."""
    start_ns = time.time_ns() - int((time.perf_counter() - event.started_at_s) * 1e9)
    return start_ns, start_ns + int(event.duration_s * 1e9)
