"""Processor time, memory and files of a process of the server."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class ProcessFigures(Collector):
    """The standard figures of Prometheus, `process_*`, with the name of the process as a label.

    Args:
        name: of the process: server, or engine, front 0 and so on, and parent.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._collector = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Metric]:
        for family in self._collector.collect():
            named = [sample._replace(labels=sample.labels | {"process": self._name}) for sample in family.samples]
            family.samples = named
            yield family
