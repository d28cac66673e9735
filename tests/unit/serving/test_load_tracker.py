"""LoadTracker: consistent snapshots while other threads write, and no load that has ended."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from patchserve_server.domain.errors import MemoryBudgetError
from patchserve_server.domain.events import Events
from patchserve_server.domain.load_progress import LoadProgress, LoadStage
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import LoadEnded
from patchserve_server.serving.load_tracker import LoadTracker

LOADS = 4
STEPS = 3000


def test_a_load_is_listed_from_its_first_image_to_its_last_step() -> None:
    tracker = LoadTracker()
    before = datetime.now(UTC)
    with tracker.track(ReferenceId("belt"), 3) as entry:
        (started,) = tracker.active_loads()
        assert before <= started.start_time <= datetime.now(UTC)
        assert started == LoadProgress(ReferenceId("belt"), LoadStage.RECEIVE, 0, 3, started.start_time, 0)
        entry.received(2)
        (receiving,) = tracker.active_loads()
        assert receiving == LoadProgress(ReferenceId("belt"), LoadStage.RECEIVE, 2, 3, started.start_time, 2)
        entry.reached(LoadStage.CALIBRATE, 7, 9)
        assert tracker.active_loads() == [
            LoadProgress(ReferenceId("belt"), LoadStage.CALIBRATE, 7, 9, started.start_time, 2)
        ]
        assert receiving.steps_done == 2, "a snapshot does not change"
    assert tracker.active_loads() == []


def test_loads_are_listed_in_the_order_of_their_start_and_by_reference() -> None:
    tracker = LoadTracker()
    with (
        tracker.track(ReferenceId("b"), 0) as first,
        tracker.track(ReferenceId("a"), 0),
        tracker.track(ReferenceId("b"), 0) as third,
    ):
        first.received(1)
        third.received(3)
        assert [(load.reference_id, load.image_count) for load in tracker.active_loads()] == [
            ("b", 1),
            ("a", 0),
            ("b", 3),
        ]
        assert [load.image_count for load in tracker.active_loads(ReferenceId("b"))] == [1, 3]
        assert tracker.active_loads(ReferenceId("c")) == []


def test_a_failed_load_is_no_longer_listed() -> None:
    tracker = LoadTracker()
    with tracker.track(ReferenceId("other"), 0):
        with suppress(LookupError), tracker.track(ReferenceId("belt"), 0) as entry:
            assert len(tracker.active_loads()) == 2
            raise LookupError
        entry.reached(LoadStage.EMBED, 1, 2)  # like the thread of a fit that has been cancelled
        assert [load.reference_id for load in tracker.active_loads()] == ["other"]


def test_readers_get_consistent_snapshots_while_loads_are_updated() -> None:
    tracker = LoadTracker()
    start, ended = threading.Barrier(LOADS + 1), threading.Event()

    def write(number: int) -> None:
        with tracker.track(ReferenceId(f"load-{number}"), STEPS) as entry:
            start.wait(10)
            for step in range(1, STEPS + 1):
                entry.received(step)
                entry.reached(LoadStage.EMBED, step, 2 * step)
            assert ended.wait(10)

    def read() -> None:
        start.wait(10)
        done: dict[str, int] = {}
        while min(done.values(), default=0) < STEPS:
            loads = tracker.active_loads()
            assert {load.reference_id for load in loads} == {f"load-{number}" for number in range(LOADS)}
            for load in loads:
                assert load.steps_total in (STEPS, 2 * load.steps_done, 2 * (load.steps_done - 1))
                assert done.get(load.reference_id, 0) <= load.image_count <= STEPS
                done[load.reference_id] = load.image_count
        ended.set()

    with ThreadPoolExecutor(LOADS + 1) as pool:
        for future in [*(pool.submit(write, number) for number in range(LOADS)), pool.submit(read)]:
            future.result(60)
    assert tracker.active_loads() == []


class Heard(Events):
    """Remembers which loads began and how they ended."""

    def __init__(self) -> None:
        self.began: list[ReferenceId] = []
        self.ended: list[LoadEnded] = []

    def load_began(self, reference_id: ReferenceId) -> None:
        self.began.append(reference_id)

    def load_ended(self, event: LoadEnded) -> None:
        self.ended.append(event)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(None, ""), (MemoryBudgetError("large"), "MEMORY_BUDGET"), (asyncio.CancelledError(), "CANCELLED")],
)
def test_a_load_is_told_with_its_stages_whatever_its_end_is(error: BaseException | None, reason: str) -> None:
    heard = Heard()
    tracker = LoadTracker(heard)
    with suppress(MemoryBudgetError, asyncio.CancelledError), tracker.track(ReferenceId("a"), 2, appends=True) as load:
        load.received(2)
        load.reached(LoadStage.EMBED, 0, 2)
        load.begin_to_fit()
        load.reached(LoadStage.EMBED, 2, 2)
        load.reached(LoadStage.SAVE, 0, 1)
        if error is not None:
            raise error
    assert heard.began == ["a"]
    [end] = heard.ended
    assert (end.reference_id, end.appends, end.reason) == ("a", True, reason)
    assert [step.stage for step in end.steps] == [LoadStage.RECEIVE, LoadStage.EMBED, LoadStage.SAVE]
    assert end.waited_s >= 0
    measured_s = sum(step.duration_s for step in end.steps) + end.waited_s
    assert measured_s == pytest.approx(end.duration_s, abs=0.05)
