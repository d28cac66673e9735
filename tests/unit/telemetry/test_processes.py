"""The metrics of several processes as those of one server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fakes.events import inspected
from fakes.scrape import Scrape
from fakes.waiting import wait_until
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from patchserve_server.domain.readings import Reading
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import BatchScored
from patchserve_server.serving.observation import Observation
from patchserve_server.telemetry.metrics.adapter import observe, registry_of_processes
from patchserve_server.telemetry.metrics.snapshots import SnapshotServer


class Process:
    """One of several processes, here in this one."""

    def __init__(self, path: Path, name: str) -> None:
        self.observation = Observation()
        registry = observe(self.observation, name, lambda: 100)
        self._server = SnapshotServer(path, registry, lambda: None)

    def score_batches(self, count: int) -> None:
        for _ in range(count):
            self.observation.events.batch_scored(BatchScored((None, None), 1, 0.0, 0.1, failed=False))

    def inspect(self, *reference_ids: str) -> None:
        for reference_id in reference_ids:
            self.observation.events.inspected(inspected(ReferenceId(reference_id)))

    def end(self) -> None:
        self._server.close()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [tmp_path / "front 0", tmp_path / "front 1"]


@pytest.fixture
def processes(paths: list[Path]) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        started = [Process(path, path.name) for path in paths]
        for each in started:
            stack.callback(each.end)
        yield started


def scrape(registry: CollectorRegistry) -> Scrape:
    return Scrape(generate_latest(registry).decode())  # type: ignore[no-untyped-call]


def test_counts_are_summed_and_gauges_as_the_table_says(paths: list[Path], processes: list[Process]) -> None:
    registry = registry_of_processes(paths, lambda: 100)
    for number, process in enumerate(processes):
        process.score_batches(number + 1)
        readings = [
            Reading("queue_images", number + 2),
            Reading("ready", number),
            Reading("reference_drift", number / 2, ("belt",)),
        ]
        process.observation.readings.add(readings.copy)
    found = scrape(registry)
    assert found.total("batch_images_count") == 3
    assert found.total("batch_images_bucket", le="2.0") == 3
    assert found.total("batch_images_bucket", le="1.0") == 0
    assert found.total("queue_images") == 5
    assert found.total("ready") == 0
    assert found.total("reference_drift", reference="belt") == 0.5
    names = {sample.labels["process"] for sample in found.matching("process_cpu_seconds_total")}
    assert names == {"front 0", "front 1", "parent"}


def test_what_an_ended_process_has_counted_still_counts_and_its_gauges_do_not(
    paths: list[Path], processes: list[Process]
) -> None:
    registry = registry_of_processes(paths, lambda: 100)
    processes[0].score_batches(5)
    processes[1].score_batches(2)
    for process in processes:
        process.observation.readings.add(lambda: [Reading("queue_images", 1)])
    assert scrape(registry).total("queue_images") == 2
    processes[0].end()
    ended = scrape(registry)
    assert ended.total("batch_images_count") == 7
    assert ended.total("queue_images") == 1
    again = Process(paths[0], "front 0")
    again.score_batches(1)
    try:
        for _ in range(2):
            assert scrape(registry).total("batch_images_count") == 8
    finally:
        again.end()


def test_all_processes_together_name_no_more_references_than_one_may(
    paths: list[Path], processes: list[Process]
) -> None:
    limit = 2
    registry = registry_of_processes(paths, lambda: limit)

    def verdicts() -> dict[str, float]:
        found = scrape(registry)
        names = {sample.labels["reference"] for sample in found.matching("verdicts_total")}
        assert names == {sample.labels["reference"] for sample in found.matching("anomaly_score_count")}
        return {name: found.total("verdicts_total", reference=name) for name in names}

    processes[0].inspect("a", "b", "c")
    processes[1].inspect("d", "a", "e", "e")
    assert verdicts() == {"a": 2, "b": 1, "other": 4}
    processes[1].end()
    again = Process(paths[1], "front 1")
    again.inspect("f", "a")
    try:
        assert verdicts() == {"a": 3, "b": 1, "other": 5}
        limit = 3
        again.inspect("c", "g")
        assert verdicts() == {"a": 3, "b": 1, "other": 6, "g": 1}, "no sum shrinks"
    finally:
        again.end()


def test_a_process_that_cannot_read_its_metrics_logs_why(
    paths: list[Path], processes: list[Process], caplog: pytest.LogCaptureFixture
) -> None:
    processes[0].observation.readings.add(lambda: [Reading("no metric", 1)])
    found = scrape(registry_of_processes(paths, lambda: 100))
    assert {sample.labels["process"] for sample in found.matching("process_cpu_seconds_total")} == {"front 1", "parent"}
    wait_until(lambda: "The metrics of this process could not be sent" in caplog.text)


def test_before_any_process_has_started_there_are_the_figures_of_the_parent(paths: list[Path]) -> None:
    found = scrape(registry_of_processes(paths, lambda: 100))
    assert {family.name for family in found.families} >= {"process_cpu_seconds"}
