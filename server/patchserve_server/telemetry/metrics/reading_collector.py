"""What can be read of the server, as gauges of prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from patchserve_server.domain.readings import Reading
from patchserve_server.telemetry.metrics import definitions
from patchserve_server.telemetry.metrics.definitions import PREFIX, Merge
from patchserve_server.telemetry.metrics.reference_names import ReferenceNames

MERGES: Final[dict[Merge, Callable[[float, float], float]]] = {
    Merge.SUM: lambda one, other: one + other,
    Merge.MIN: min,
    Merge.MAX: max,
}


class ReadingCollector(Collector):
    """Reads when somebody scrapes. Readings with the same labels become one, as the table of metrics says.

    Args:
        readings: all that can be read.
        names: of references.
    """

    def __init__(self, readings: Iterable[Reading], names: ReferenceNames) -> None:
        self._readings = readings
        self._names = names

    def collect(self) -> Iterator[Metric]:
        values: dict[str, dict[tuple[str, ...], float]] = {}
        for reading in self._readings:
            metric = definitions.BY_NAME[reading.name]
            labels, series = self._labels(metric, reading), values.setdefault(reading.name, {})
            before = series.get(labels)
            series[labels] = reading.value if before is None else MERGES[metric.merge](before, reading.value)
        for name, series in values.items():
            metric = definitions.BY_NAME[name]
            family = GaugeMetricFamily(PREFIX + name, metric.tells, labels=metric.labels)
            for labels, value in series.items():
                family.add_metric(labels, value)
            yield family

    def _labels(self, metric: definitions.Metric, reading: Reading) -> tuple[str, ...]:
        if "reference" not in metric.labels:
            return reading.labels
        pairs = zip(metric.labels, reading.labels, strict=True)
        return tuple(self._names.label(value) if name == "reference" else value for name, value in pairs)
