"""The metrics of all processes of a server together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from patchserve_server.telemetry.metrics.definitions import BY_NAME, PREFIX, Merge
from patchserve_server.telemetry.metrics.reading_collector import MERGES
from patchserve_server.telemetry.metrics.reference_names import OTHER, ReferenceNames
from patchserve_server.telemetry.metrics.snapshots import Family, Snapshot, Value, families_of, read_snapshot

_AT_ONCE: Final = 8


class ProcessesCollector(Collector):
    """Reads every process when somebody scrapes, and makes one of what they have in common.

    What is counted is summed; what a process has counted before it ended, as far as it was scraped, still counts: sums
    never shrink. A gauge is the sum, the least or the greatest one, as the table of metrics says.

    Each process names the first references that it sees itself. Of all these names, the first ones are kept here.

    Args:
        sockets: of the processes, see `SnapshotServer`.
        own: the metrics of this process.
        names: of references.
    """

    def __init__(self, sockets: Sequence[Path], own: CollectorRegistry, names: ReferenceNames) -> None:
        self._sockets = sockets
        self._own = own
        self._names = names
        self._labels = {OTHER: OTHER}  # for good: what counts for `other` must not leave its sum
        self._last: dict[Path, Snapshot] = {}
        self._ended: dict[str, Family] = {}  # what ended processes have counted
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock, ThreadPoolExecutor(_AT_ONCE) as pool:
            total: dict[str, Family] = {}
            for path, snapshot in zip(self._sockets, pool.map(read_snapshot, self._sockets), strict=True):
                self._take(path, snapshot, total)
            _add(total, families_of(self._own))
            _add(total, self._ended)
        for name, family in total.items():
            yield _metric(name, family)

    def _take(self, path: Path, snapshot: Snapshot | None, total: dict[str, Family]) -> None:
        last = self._last.get(path)
        if snapshot is None:
            if last is not None:
                _add(total, _counted(last))
            return
        if last is not None and last.run != snapshot.run:
            _add(self._ended, _counted(last))
        families: dict[str, Family] = {}
        _add(families, snapshot.families, self._label)
        self._last[path] = replace(snapshot, families=families)
        _add(total, families)

    def _label(self, name: str) -> str:
        if (label := self._labels.get(name)) is None:
            label = self._labels[name] = self._names.label(name)
        return label


def _counted(snapshot: Snapshot) -> dict[str, Family]:
    return {name: family for name, family in snapshot.families.items() if family.is_counted}


def _add(
    total: dict[str, Family], families: dict[str, Family], label_of: Callable[[str], str] = lambda name: name
) -> None:
    """Adds the families to the total. `label_of`: the value of the label `reference` for one of these families."""
    for name, family in families.items():
        known = BY_NAME.get(name.removeprefix(PREFIX))
        merge = MERGES[Merge.SUM if known is None or family.is_counted else known.merge]
        samples = total.setdefault(name, Family(family.documentation, family.kind, {})).samples
        for (sample, labels), value in family.samples.items():
            key = sample, tuple((name, label_of(text) if name == "reference" else text) for name, text in labels)
            before = samples.get(key)
            if before is not None:
                value = Value(merge(before.number, value.number), value.exemplar or before.exemplar)  # noqa: PLW2901
            samples[key] = value


def _metric(name: str, family: Family) -> Metric:
    metric = Metric(name, family.documentation, family.kind)
    for (sample, labels), value in family.samples.items():
        metric.add_sample(sample, dict(labels), value.number, exemplar=value.exemplar)
    return metric
