"""LoadTracker: whole snapshots while other threads write, and nothing of a load that has ended."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

from patchserve_server.domain.load_progress import LoadProgress, LoadStage
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.load_tracker import LoadTracker

LOADS = 4
STEPS = 3000


def test_a_load_is_told_from_its_first_image_to_its_last_step() -> None:
    board = LoadTracker()
    before = datetime.now(UTC)
    with board.entry(ReferenceId("belt"), 3) as entry:
        (begun,) = board.snapshot()
        assert before <= begun.start_time <= datetime.now(UTC)
        assert begun == LoadProgress(ReferenceId("belt"), LoadStage.RECEIVE, 0, 3, begun.start_time, 0)
        entry.received(2)
        (receiving,) = board.snapshot()
        assert receiving == LoadProgress(ReferenceId("belt"), LoadStage.RECEIVE, 2, 3, begun.start_time, 2)
        entry.reached(LoadStage.CALIBRATE, 7, 9)
        assert board.snapshot() == [LoadProgress(ReferenceId("belt"), LoadStage.CALIBRATE, 7, 9, begun.start_time, 2)]
        assert receiving.steps_done == 2, "a snapshot stays as it was"
    assert board.snapshot() == []


def test_loads_come_in_the_order_of_their_start_and_can_be_asked_for_by_reference() -> None:
    board = LoadTracker()
    with (
        board.entry(ReferenceId("b"), 0) as first,
        board.entry(ReferenceId("a"), 0),
        board.entry(ReferenceId("b"), 0) as third,
    ):
        first.received(1)
        third.received(3)
        assert [(load.reference_id, load.image_count) for load in board.snapshot()] == [("b", 1), ("a", 0), ("b", 3)]
        assert [load.image_count for load in board.snapshot(ReferenceId("b"))] == [1, 3]
        assert board.snapshot(ReferenceId("c")) == []


def test_a_load_that_fails_is_gone() -> None:
    board = LoadTracker()
    with board.entry(ReferenceId("other"), 0):
        with suppress(LookupError), board.entry(ReferenceId("belt"), 0) as entry:
            assert len(board.snapshot()) == 2
            raise LookupError
        entry.reached(LoadStage.EMBED, 1, 2)  # as by the thread of a fit that was given up
        assert [load.reference_id for load in board.snapshot()] == ["other"]


def test_readers_see_whole_steps_while_every_load_is_written() -> None:
    board = LoadTracker()
    start, ended = threading.Barrier(LOADS + 1), threading.Event()

    def write(number: int) -> None:
        with board.entry(ReferenceId(f"load-{number}"), STEPS) as entry:
            start.wait(10)
            for step in range(1, STEPS + 1):
                entry.received(step)
                entry.reached(LoadStage.EMBED, step, 2 * step)
            assert ended.wait(10)

    def read() -> None:
        start.wait(10)
        done: dict[str, int] = {}
        while min(done.values(), default=0) < STEPS:
            loads = board.snapshot()
            assert {load.reference_id for load in loads} == {f"load-{number}" for number in range(LOADS)}
            for load in loads:
                assert load.steps_total in (STEPS, 2 * load.steps_done, 2 * (load.steps_done - 1))
                assert done.get(load.reference_id, 0) <= load.image_count <= STEPS
                done[load.reference_id] = load.image_count
        ended.set()

    with ThreadPoolExecutor(LOADS + 1) as pool:
        for future in [*(pool.submit(write, number) for number in range(LOADS)), pool.submit(read)]:
            future.result(60)
    assert board.snapshot() == []
