"""What GetServerStats counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest
from fakes.events import OTHER, failed, inspected
from fakes.peers import Switchboard
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.call_events import CallEnd, CallInfo, FrameEnd, FrameInfo, FrameResult
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId
from patchserve_server.domain.work_events import ImageProcessed, Stage, Step, Wait
from patchserve_server.serving.shared_statistics import SharedStatistics
from patchserve_server.serving.statistics import Histogram, OutcomeCounts, ServerStatistics, summed


@dataclass
class SomeCall:
    method_name: str
    is_stream: bool = False


def call(method: str, *, is_stream: bool = False) -> CallInfo:
    return cast(CallInfo, SomeCall(method, is_stream))


def test_calls_are_counted_by_method_and_code_and_failures_by_reason() -> None:
    statistics = ServerStatistics()
    for code, reason in (("OK", ""), ("OK", ""), ("NOT_FOUND", "REFERENCE_NOT_FOUND")):
        statistics.call_began(call("Infer"))
        statistics.call_ended(call("Infer"), CallEnd(code, reason, 0.1))
    statistics.frame_ended(cast(FrameInfo, None), FrameEnd(FrameResult.FAILED, "REFERENCE_NOT_FOUND", 0.1))
    statistics.frame_ended(cast(FrameInfo, None), FrameEnd(FrameResult.INSPECTED, "", 0.1))
    assert statistics.calls == {("Infer", "OK"): 2, ("Infer", "NOT_FOUND"): 1}
    assert statistics.failures == {"REFERENCE_NOT_FOUND": 2}


def test_streams_are_counted_while_they_are_open() -> None:
    statistics = ServerStatistics()
    stream = call("InferStream", is_stream=True)
    statistics.call_began(stream)
    statistics.call_began(call("Infer"))
    assert statistics.streams_open == 1
    statistics.call_ended(stream, CallEnd("CANCELLED", "", 1.0))
    assert statistics.streams_open == 0


def test_an_image_counts_with_its_waits_and_with_everything() -> None:
    statistics = ServerStatistics()
    steps = (Step(Wait.TURN, 0, 0.02), Step(Stage.DECODE, 0, 0.1), Step(Wait.BATCH, 0, 0.03), Step(Stage.EMBED, 0, 0.4))
    statistics.processed(ImageProcessed(DEFAULT_REFERENCE_ID, is_frame=False, steps=steps))
    assert statistics.wait.sum_s == pytest.approx(0.05)
    assert statistics.inspection.sum_s == pytest.approx(0.55)
    assert sum(statistics.wait.counts) == sum(statistics.inspection.counts) == 1


def test_verdicts_are_counted_for_each_reference_and_forgotten_with_it() -> None:
    statistics = ServerStatistics()
    for anomalous in (True, False, False):
        statistics.inspected(inspected(anomalous=anomalous))
    statistics.failed(failed(OTHER))
    assert {key: (one.intact, one.anomalous, one.failed) for key, one in statistics.references.items()} == {
        DEFAULT_REFERENCE_ID: (2, 1, 0),
        OTHER: (0, 0, 1),
    }
    statistics.reference_changed(OTHER, None)
    assert list(statistics.references) == [DEFAULT_REFERENCE_ID]


def test_callers_with_many_references_cannot_grow_the_memory() -> None:
    statistics = ServerStatistics()
    for number in range(150):
        statistics.inspected(inspected(ReferenceId(f"r{number}")))
    assert len(statistics.references) == 100
    assert statistics.other.total == 50
    statistics.reference_changed(ReferenceId("r0"), None)
    statistics.inspected(inspected(ReferenceId("new")))
    assert "new" in statistics.references


@given(st.lists(st.floats(0, 200)))
def test_every_duration_is_in_the_class_that_its_bounds_say(durations_s: list[float]) -> None:
    histogram = Histogram()
    for duration_s in durations_s:
        histogram.add(duration_s)
    below = 0
    for bound_s, count in zip(histogram.BOUNDS_S, histogram.counts, strict=False):
        below += count
        assert below == sum(duration_s <= bound_s for duration_s in durations_s)
    assert sum(histogram.counts) == len(durations_s)


def test_each_process_has_an_id_of_its_own() -> None:
    first, second = ServerStatistics(), ServerStatistics()
    assert first.process_id != second.process_id
    assert first.uptime_s >= 0


async def test_the_counts_of_several_fronts_are_summed_and_are_the_same_from_each() -> None:
    switchboard = Switchboard()
    all_of_them = [ServerStatistics() for _ in range(3)]
    shared = [SharedStatistics(own, switchboard.front()) for own in all_of_them]
    for number, own in enumerate(all_of_them, 1):
        own.call_began(call("InferStream", is_stream=True))
        for _ in range(number):
            own.call_began(call("Infer"))
            own.call_ended(call("Infer"), CallEnd("NOT_FOUND", "REFERENCE_NOT_FOUND", 0.1))
            own.inspected(inspected(anomalous=number == 2))
        own.failed(failed(OTHER))
        own.wait.add(0.001 * number)
        own.inspection.add(0.1)
    counts = await shared[0].counts()
    assert counts.calls == (("Infer", "NOT_FOUND", 6),)
    assert counts.failures == (("REFERENCE_NOT_FOUND", 6),)
    assert counts.references == (("default", OutcomeCounts(4, 2, 0)), ("other", OutcomeCounts(0, 0, 3)))
    assert (counts.streams_open, sum(counts.wait_counts), sum(counts.inspection_counts)) == (3, 3, 3)
    assert counts.wait_sum_s == pytest.approx(0.006)
    assert counts.start_time == all_of_them[0].start_time
    for each in shared[1:]:
        again = await each.counts()
        assert (again.process_id, again.calls, again.references) == (counts.process_id, counts.calls, counts.references)
        assert again.uptime_s >= counts.uptime_s


def test_other_processes_have_another_id_together() -> None:
    one, other, third = (ServerStatistics().counts() for _ in range(3))
    assert summed([one]).process_id == one.process_id
    assert summed([one, other]).process_id == summed([other, one]).process_id != summed([one, third]).process_id


def test_the_references_of_all_processes_are_limited_too() -> None:
    first, second = ServerStatistics(), ServerStatistics()
    for number in range(100):
        first.inspected(inspected(ReferenceId(f"first-{number}")))
        second.inspected(inspected(ReferenceId(f"second-{number}")))
        second.inspected(inspected(ReferenceId(f"second-{number}")))
    references = dict(summed([first.counts(), second.counts()]).references)
    assert len(references) == 101
    assert sum(counts.total for counts in references.values()) == 300
    assert references[""].total == 100
