"""What the listener counts of what no caller sees at once."""

from __future__ import annotations

import pytest
from fakes.calls import FakeCall
from fakes.scrape import Scrape
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.exposition import generate_latest

from patchserve_server.domain.call_events import CallEnd
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import (
    ImageProcessed,
    LoadEnded,
    ReferenceOpened,
    Stage,
    Step,
    StoreUsed,
    Wait,
)
from patchserve_server.serving.observation import Observation
from patchserve_server.telemetry.metrics.adapter import observe

BELT = ReferenceId("belt")


class Counted:
    """The events of a server, and what is counted of them."""

    def __init__(self) -> None:
        observation = Observation()
        self._registry = observe(observation, "server", lambda: 100)
        self.events = observation.events

    @property
    def now(self) -> Scrape:
        return Scrape(generate_latest(self._registry).decode())  # type: ignore[no-untyped-call]


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [("", "ok"), ("REFERENCE_NOT_FOUND", "absent"), ("REVISION_NOT_KEPT", "absent"), ("STORAGE_FULL", "error")],
)
def test_a_store_that_has_no_such_reference_does_not_fail(counted: Counted, reason: str, outcome: str) -> None:
    counted.events.store_used(StoreUsed("load", BELT, reason, 0.0, 0.5))
    assert counted.now.total("store_operation_duration_seconds_count", operation="load", outcome=outcome) == 1
    assert counted.now.total("store_operation_duration_seconds_sum") == 0.5


@pytest.mark.parametrize(("reason", "outcome"), [("", "ok"), ("MEMORY_BUDGET", "error"), ("CANCELLED", "cancelled")])
def test_loads_and_openings_count_by_outcome(counted: Counted, reason: str, outcome: str) -> None:
    counted.events.load_ended(LoadEnded(BELT, True, reason, 0.0, 3.0, 1.0, ()))
    counted.events.reference_opened(ReferenceOpened(BELT, reason, 0.0, 2.0))
    found = counted.now
    assert found.total("reference_load_duration_seconds_sum", mode="append", outcome=outcome) == 3
    assert found.total("reference_load_duration_seconds_sum", mode="open", outcome=outcome) == 2
    assert found.total("queue_wait_seconds_sum", kind="load") == 1


def test_what_the_cpu_did_for_a_device_counts_by_stage(counted: Counted) -> None:
    assert counted.now.total("device_fallbacks_total") == 0
    for stage in (Stage.DECODE, Stage.DECODE, Stage.RENDER):
        counted.events.device_fell_back(stage)
    assert counted.now.total("device_fallbacks_total", stage="decode") == 2
    assert counted.now.total("device_fallbacks_total", stage="render") == 1


def test_what_this_process_and_the_device_did_of_a_stage_counts_as_one(counted: Counted) -> None:
    durations_s = (
        (Wait.THREAD, 0.25),
        (Stage.DECODE, 0.5),
        (Wait.BATCH, 0.75),
        (Stage.DECODE, 2.0),
        (Stage.EMBED, 4.0),
    )
    steps = tuple(Step(what, 0.0, duration_s) for what, duration_s in durations_s)
    counted.events.processed(ImageProcessed(BELT, False, steps))
    found = counted.now
    assert found.total("stage_duration_seconds_count", stage="decode") == 1
    assert found.total("stage_duration_seconds_sum", stage="decode") == 2.5
    assert found.total("stage_duration_seconds_sum", stage="embed") == 4
    assert found.total("queue_wait_seconds_sum", kind="call") == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["OK", "CANCELLED", "UNAVAILABLE", "INTERNAL"]))))
def test_whatever_calls_there_were_none_is_in_progress_when_all_have_ended(ends: list[tuple[bool, str]]) -> None:
    counted = Counted()
    calls = [FakeCall(is_stream=is_stream) for is_stream, _ in ends]
    for call in calls:
        counted.events.call_began(call)
    begun = counted.now
    assert begun.total("rpc_in_flight") == len(ends)
    assert begun.total("streams_open") == sum(is_stream for is_stream, _ in ends)
    for call, (_, code) in zip(reversed(calls), reversed(ends), strict=True):
        counted.events.call_ended(call, CallEnd(code, "" if code == "OK" else "DRAINING", 0.1))
    found = counted.now
    assert found.total("rpc_in_flight") == found.total("streams_open") == 0
    assert found.total("rpc_requests_total") == len(ends)
    assert found.total("rejected_total", reason="DRAINING") == sum(code == "UNAVAILABLE" for _, code in ends)
    assert found.total("cancelled_total") == sum(code == "CANCELLED" for _, code in ends)
