"""OpenTelemetry: its SDK and its OTLP exporters, as the variables OTEL_* say. Imported only if it is on."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.events import Events
from patchserve_server.telemetry.batch_sampling import LinkedSampler
from patchserve_server.telemetry.call_durations import CallDurations
from patchserve_server.telemetry.span_attributes import SCHEMA_URL
from patchserve_server.telemetry.span_events import SpanEvents
from patchserve_server.telemetry.span_queue import MAX_WAITING, SpanQueue

_SCOPE: Final = "patchserve_server"
_PROTOCOLS: Final = (
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
)
_END_S: Final = 3.0  # how long the end of the server waits for a collector


class OpenTelemetry:
    """What this process tells a collector: the spans of its calls, and how long they take. Close it.

    Args:
        version: of the server.
        process: the name of this process, if the server has several.

    Raises:
        StartupError: a variable OTEL_* cannot be used.
    """

    def __init__(self, version: str, process: str = "") -> None:
        for name in _PROTOCOLS:
            _check(name, os.environ.get(name, "grpc"), ("grpc",))
        self.listeners: list[Events] = []
        """They hear what happens."""
        self._endings: list[Callable[[], None]] = []
        resource = _resource(version, process)
        try:
            if _is_on("OTEL_TRACES_EXPORTER"):
                self._add_traces(resource, version)
            if _is_on("OTEL_METRICS_EXPORTER"):
                self._add_durations(resource, version)
        except ValueError as error:
            self.close()
            raise StartupError(f"A variable OTEL_* cannot be used: {error}") from error
        # It warns of each retry; a span that is lost is told by its queue.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)

    def _add_traces(self, resource: Resource, version: str) -> None:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.sampler = LinkedSampler(provider.sampler)
        self._endings.append(provider.shutdown)
        max_waiting = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, MAX_WAITING))
        provider.add_span_processor(SpanQueue(OTLPSpanExporter(), max_waiting))
        self.listeners.append(SpanEvents(provider.get_tracer(_SCOPE, version, schema_url=SCHEMA_URL)))

    def _add_durations(self, resource: Resource, version: str) -> None:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        self._endings.append(provider.shutdown)
        self.listeners.append(CallDurations(provider.get_meter(_SCOPE, version, schema_url=SCHEMA_URL)))

    def close(self) -> None:
        """Exports what waits, for a short time."""
        # Not on this thread: without a collector, the SDK waits for half a minute.
        endings = [threading.Thread(target=end, name="OpenTelemetry ends", daemon=True) for end in self._endings]
        for ending in endings:
            ending.start()
        deadline_s = time.monotonic() + _END_S  # of all of them together
        for ending in endings:
            ending.join(max(0.0, deadline_s - time.monotonic()))


def _resource(version: str, process: str) -> Resource:
    attributes = {"service.name": "patchserve", "service.version": version}
    if process:
        attributes["service.instance.id"] = f"{os.getpid()} {process}"
    # Variables win: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
    return Resource.create(attributes, SCHEMA_URL).merge(OTELResourceDetector().detect())


def _is_on(name: str) -> bool:
    value = os.environ.get(name, "otlp")
    _check(name, value, ("otlp", "none"))
    return value == "otlp"


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise StartupError(f"The variable {name} is {value!r}; it must be {' or '.join(allowed)}.")
