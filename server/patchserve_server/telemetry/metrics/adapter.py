"""All of the metrics of one process: what counts, what is read, and what a scrape gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry as Registry

from patchserve_server.serving.observation import Observation
from patchserve_server.telemetry.metrics.instruments import Instruments
from patchserve_server.telemetry.metrics.listener import MetricsListener
from patchserve_server.telemetry.metrics.process_figures import ProcessFigures
from patchserve_server.telemetry.metrics.reading_collector import ReadingCollector
from patchserve_server.telemetry.metrics.reference_names import ReferenceNames

__all__ = ["Registry", "observe", "registry_of_processes"]


def observe(observation: Observation, process: str, max_references: Callable[[], int]) -> Registry:
    """Counts what happens in this process from now on.

    Args:
        observation: who hears, and what can be read.
        process: its name, for its own figures.
        max_references: how many references have series of their own; it may change.

    Returns:
        What a scrape gets.
    """
    # Else each series has another one, with the time of its first value.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry, names = Registry(), ReferenceNames(max_references)
    observation.events.add(MetricsListener(Instruments(registry), names))
    registry.register(ReadingCollector(observation.readings, names))
    registry.register(ProcessFigures(process))
    return registry


def registry_of_processes(paths: Sequence[Path], max_references: Callable[[], int]) -> Registry:
    """What a scrape gets of several processes, which share their metrics at these paths, and of this one.

    Args:
        paths: of their sockets.
        max_references: as of `observe`, of all processes together.
    """
    from patchserve_server.telemetry.metrics.processes import ProcessesCollector  # noqa: PLC0415 - needs Unix sockets

    own, registry = Registry(), Registry()
    own.register(ProcessFigures("parent"))
    registry.register(ProcessesCollector(paths, own, ReferenceNames(max_references)))
    return registry
