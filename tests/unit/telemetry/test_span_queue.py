"""Spans wait in bounded memory, and those that are lost are counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from patchserve_server.telemetry.span_queue import SpanQueue


class GatedExporter(SpanExporter):
    """Exports nothing until its gate is open; `is_waiting` is set when it has something."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.gate = threading.Event()
        self.is_waiting = threading.Event()
        self.names: list[str] = []
        self._result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_waiting.set()
        assert self.gate.wait(30)
        self.names += [span.name for span in spans]
        return self._result


def end_spans(queue: SpanQueue, count: int, *, sampled: bool = True) -> None:
    provider = TracerProvider(None if sampled else ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(queue)
    for number in range(count):
        provider.get_tracer("test").start_span(str(number)).end()


def test_spans_over_the_limit_are_dropped_and_counted_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = GatedExporter()
    queue = SpanQueue(exporter, max_waiting=4)
    end_spans(queue, 4)
    assert exporter.is_waiting.wait(30)  # a full batch is exported at once
    end_spans(queue, 100)
    assert queue.dropped == 100, "those that are being exported count too"
    exporter.gate.set()
    queue.shutdown()
    assert exporter.names == ["0", "1", "2", "3"]
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == ["Spans are lost, 1 so far: too many wait for the collector"]


def test_there_is_room_again_when_spans_are_exported() -> None:
    exporter = GatedExporter()
    exporter.gate.set()
    queue = SpanQueue(exporter, max_waiting=4)
    for _ in range(25):
        end_spans(queue, 4)
        queue.force_flush()
    assert len(exporter.names) == 100
    assert queue.dropped == 0
    queue.shutdown()


def test_spans_that_the_collector_does_not_take_are_counted() -> None:
    exporter = GatedExporter(SpanExportResult.FAILURE)
    exporter.gate.set()
    queue = SpanQueue(exporter)
    end_spans(queue, 3)
    queue.shutdown()
    assert queue.dropped == 3


def test_an_exporter_that_fails_loses_its_spans_and_no_others() -> None:
    class Failing(GatedExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            if not self.names:
                self.names.append("failed")
                raise OSError
            return super().export(spans)

    exporter = Failing()
    exporter.gate.set()
    queue = SpanQueue(exporter, max_waiting=4)
    for _ in range(3):
        end_spans(queue, 2)
        queue.force_flush()
    queue.shutdown()
    assert (queue.dropped, len(exporter.names)) == (2, 1 + 4)


def test_spans_that_are_not_recorded_do_not_wait() -> None:
    exporter = GatedExporter()
    exporter.gate.set()
    queue = SpanQueue(exporter, max_waiting=4)
    end_spans(queue, 100, sampled=False)
    queue.shutdown()
    assert (queue.dropped, exporter.names) == (0, [])
