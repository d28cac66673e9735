"""The counters, gauges and histograms of prometheus_client, as the table of metrics defines them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from patchserve_server.telemetry.metrics import definitions
from patchserve_server.telemetry.metrics.definitions import PREFIX, Metric

M = TypeVar("M", bound=MetricWrapperBase)


class Series(Generic[M]):
    """The series of one metric. prometheus_client takes a lock and makes texts to find one; this remembers it."""

    def __init__(self, metric: M, known: Iterable[tuple[str, ...]]) -> None:
        self._metric = metric
        self._series: dict[tuple[str, ...], M] = {}
        for labels in known:
            self.of(*labels)

    def of(self, *labels: str) -> M:
        """The one with these values of its labels."""
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = self._metric.labels(*labels) if labels else self._metric
        return found


class Instruments:
    """One for each metric that is counted. The others are read when somebody asks: `ReadingCollector`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(metric: Metric) -> Series[Counter]:
            return Series(Counter(PREFIX + metric.name, metric.tells, metric.labels, registry=registry), metric.known)

        def gauge(metric: Metric) -> Gauge:
            return Gauge(PREFIX + metric.name, metric.tells, registry=registry)

        def histogram(metric: Metric) -> Series[Histogram]:
            name, tells, labels = PREFIX + metric.name, metric.tells, metric.labels
            return Series(Histogram(name, tells, labels, registry=registry, buckets=metric.buckets), metric.known)

        self.rpc_requests = counter(definitions.RPC_REQUESTS)
        self.rpc_duration = histogram(definitions.RPC_DURATION)
        self.rpc_in_flight = gauge(definitions.RPC_IN_FLIGHT)
        self.streams_open = gauge(definitions.STREAMS_OPEN)
        self.frames = counter(definitions.FRAMES)
        self.stage_duration = histogram(definitions.STAGE_DURATION)
        self.queue_wait = histogram(definitions.QUEUE_WAIT)
        self.batch_images = histogram(definitions.BATCH_IMAGES)
        self.device_fallbacks = counter(definitions.DEVICE_FALLBACKS)
        self.rejected = counter(definitions.REJECTED)
        self.cancelled = counter(definitions.CANCELLED)
        self.verdicts = counter(definitions.VERDICTS)
        self.anomaly_score = histogram(definitions.ANOMALY_SCORE)
        self.load_duration = histogram(definitions.REFERENCE_LOAD_DURATION)
        self.store_duration = histogram(definitions.STORE_OPERATION_DURATION)
