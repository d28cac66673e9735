"""A collector of spans: OTLP over gRPC on a real socket, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1 import trace_pb2

from fakes.waiting import wait_until


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """A span as it arrived; ids are hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str  # empty: a root
    kind: str
    attributes: dict[str, Any]
    links: tuple[str, ...]  # ids of spans
    is_error: bool
    start_ns: int
    end_ns: int


class Collector:
    """What has arrived so far."""

    def __init__(self) -> None:
        self.address = ""
        self.spans: list[CollectedSpan] = []
        self.metrics: list[Metric] = []
        self.resource: dict[str, Any] = {}
        self.answers = threading.Event()  # until it is set, no export is answered
        self.answers.set()

    def wait_for(self, enough: Callable[[list[CollectedSpan]], bool]) -> list[CollectedSpan]:
        """All spans, as soon as there are enough."""
        wait_until(lambda: enough(self.spans))
        return self.spans

    def trace(self, trace_id: str, count: int) -> list[CollectedSpan]:
        """The spans of a trace, as soon as there are so many."""
        self.wait_for(lambda spans: sum(span.trace_id == trace_id for span in spans) >= count)
        return [span for span in self.spans if span.trace_id == trace_id]


def children(spans: list[CollectedSpan], parent: CollectedSpan) -> list[CollectedSpan]:
    """The spans below one, in the order in which they were made."""
    return [span for span in spans if span.parent_id == parent.span_id]


@contextmanager
def collector() -> Iterator[Collector]:
    collected = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_TraceService(collected), server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_MetricsService(collected), server)  # type: ignore[no-untyped-call]
    collected.address = f"http://localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    try:
        yield collected
    finally:
        collected.answers.set()
        server.stop(1).wait()


class _TraceService(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collected: Collector) -> None:
        self._collected = collected

    def Export(  # noqa: N802 - OTLP names it
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self._collected.answers.wait()
        for resource in request.resource_spans:
            self._collected.resource = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self._collected.spans += map(_span, scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


class _MetricsService(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collected: Collector) -> None:
        self._collected = collected

    def Export(  # noqa: N802 - OTLP names it
        self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self._collected.metrics += scope.metrics
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _span(span: trace_pb2.Span) -> CollectedSpan:
    return CollectedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        attributes=_attributes(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    return {pair.key: value(pair) for pair in pairs}
