"""The spans that wait for their export: bounded, so that a collector which is slow or gone holds nobody up."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from patchserve_server.serving.log_interval import LogInterval

MAX_WAITING: Final = 4096
_LOG_EVERY_S: Final = 60.0

_log = logging.getLogger(__name__)


class SpanQueue(SpanProcessor):
    """Exports spans in batches, on a thread of its own. Those for which there is no room are dropped, and counted.

    BatchSpanProcessor drops spans too, but does not say how many. So this one gives it no more than it can hold.

    Args:
        exporter: sends them.
        max_waiting: how many may wait.
    """

    def __init__(self, exporter: SpanExporter, max_waiting: int = MAX_WAITING) -> None:
        self.dropped = 0
        """Spans that were dropped or could not be exported."""
        self._max_waiting = max_waiting
        self._waiting = 0
        self._counting = threading.Lock()
        self._lost = LogInterval(_LOG_EVERY_S)
        self._batches = BatchSpanProcessor(
            _CountingExporter(exporter, self), max_queue_size=max_waiting, max_export_batch_size=min(512, max_waiting)
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: a span is exported when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._counting:
            has_room = self._waiting < self._max_waiting
            self._waiting += has_room
        if has_room:
            self._batches.on_end(span)
        else:
            self._lose(1, "too many wait for the collector")

    def exported(self, count: int, *, was_received: bool) -> None:
        """So many have left the queue."""
        with self._counting:
            self._waiting -= count
        if not was_received:
            self._lose(count, "the collector cannot be reached, or has refused them")

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def _lose(self, count: int, why: str) -> None:
        with self._counting:
            self.dropped += count
            due = self._lost.count()
        if due is not None:
            # Outside of this call: it is about many.
            contextvars.Context().run(_log.warning, "Spans are lost, %d so far: %s", self.dropped, why)


class _CountingExporter(SpanExporter):
    """Tells the queue what it exports."""

    def __init__(self, exporter: SpanExporter, queue: SpanQueue) -> None:
        self._exporter = exporter
        self._queue = queue

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._queue.exported(len(spans), was_received=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
