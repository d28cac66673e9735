"""FrameQueue: each accepted frame has exactly one outcome, and memory is bounded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from fakes.waiting import settle
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.call_events import FrameEnd, FrameInfo, FrameResult
from patchserve_server.domain.errors import DeadlineError, FrameDroppedError, UndecodableImageError
from patchserve_server.domain.events import Events
from patchserve_server.domain.inspection import OutputOptions
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.domain.stream import (
    Frame,
    FrameOutcome,
    NoticeKind,
    OverflowPolicy,
    ResultOrdering,
    StreamConfig,
    StreamNotice,
)
from patchserve_server.serving.admission import NOTHING, Admission, Capacity
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.frame_queue import FrameQueue, Inspect

CONFIG = StreamConfig(DEFAULT_REFERENCE_ID, None, OutputOptions(), max_in_flight=4)


def frame_queue(config: StreamConfig, inspect: Inspect, *, max_active: int, max_images: int = 1000) -> FrameQueue:
    admission = Admission("image", Capacity(2 * max_images, 2**20), share=1, largest=Capacity(1, 2**19))
    flow = FlowKey("a", 1)
    return FrameQueue(config, inspect, max_active=max_active, admission=admission, flow=flow, events=Balance())


class Balance(Events):
    """Every frame that begins ends, once."""

    def __init__(self) -> None:
        self.open: list[FrameInfo] = []
        self.ends: list[tuple[int, FrameResult]] = []

    def frame_began(self, frame: FrameInfo) -> None:
        self.open.append(frame)

    def frame_ended(self, frame: FrameInfo, end: FrameEnd) -> None:
        self.open.remove(frame)
        self.ends.append((frame.sequence, end.result))


def told(queue: FrameQueue) -> Balance:
    assert isinstance(queue._told, Balance)
    return queue._told


def assert_nothing_is_held(queue: FrameQueue) -> None:
    assert not told(queue).open
    assert queue._admission.held == NOTHING
    assert not vars(queue._admission._ledger)["_held_by_client"]


def frame(number: int) -> Frame:
    return Frame(f"f{number}", (number, 0), b"")


class Gates:
    """Inspections that end when the test opens their gate."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.results: dict[str, asyncio.Future[Any]] = {}

    async def inspect(self, frame: Frame) -> Any:
        self.started.append(frame.frame_id)
        self.results[frame.frame_id] = asyncio.get_running_loop().create_future()
        return await self.results[frame.frame_id]

    async def open(self, frame_id: str, result: object = "fine") -> None:
        await settle()
        if isinstance(result, Exception):
            self.results[frame_id].set_exception(result)
        else:
            self.results[frame_id].set_result(result)
        await settle()


def fine(outcome: FrameOutcome) -> bool:
    result: object = outcome.result
    return result == "fine"


async def collect(queue: FrameQueue) -> list[FrameOutcome]:
    return [event async for event in queue.events() if isinstance(event, FrameOutcome)]


async def test_outcomes_come_in_the_order_of_the_frames() -> None:
    gates = Gates()
    queue = frame_queue(CONFIG, gates.inspect, max_active=4)
    for number in range(3):
        await queue.put(frame(number))
    queue.close()
    for number in (2, 0, 1):
        await gates.open(f"f{number}")
    outcomes = await collect(queue)
    assert [(outcome.frame_id, outcome.sequence) for outcome in outcomes] == [("f0", 0), ("f1", 1), ("f2", 2)]
    assert [outcome.capture_time for outcome in outcomes] == [(0, 0), (1, 0), (2, 0)]


async def test_with_completion_ordering_outcomes_come_as_they_finish() -> None:
    gates = Gates()
    queue = frame_queue(replace(CONFIG, ordering=ResultOrdering.COMPLETION), gates.inspect, max_active=4)
    for number in range(3):
        await queue.put(frame(number))
    queue.close()
    for number in (2, 0, 1):
        await gates.open(f"f{number}")
    assert [outcome.frame_id for outcome in await collect(queue)] == ["f2", "f0", "f1"]


async def test_a_full_queue_blocks_the_sender_until_an_outcome_is_taken() -> None:
    gates = Gates()
    queue = frame_queue(CONFIG, gates.inspect, max_active=4)
    for number in range(4):
        await queue.put(frame(number))
    fifth = asyncio.create_task(queue.put(frame(4)))
    await gates.open("f0")
    assert not fifth.done(), "the outcome of f0 is not taken yet"
    events = queue.events()
    await anext(events)
    taking_next = asyncio.ensure_future(anext(events))
    await settle()
    assert fifth.done()
    taking_next.cancel()
    queue.__exit__()


async def test_at_most_max_active_frames_are_in_work() -> None:
    gates = Gates()
    queue = frame_queue(CONFIG, gates.inspect, max_active=2)
    for number in range(4):
        await queue.put(frame(number))
    await settle()
    assert gates.started == ["f0", "f1"]
    await gates.open("f1")
    assert gates.started == ["f0", "f1", "f2"]
    queue.__exit__()


async def test_drop_oldest_drops_the_oldest_frame_that_has_not_started() -> None:
    gates = Gates()
    queue = frame_queue(replace(CONFIG, overflow=OverflowPolicy.DROP_OLDEST), gates.inspect, max_active=1)
    for number in range(6):  # f0 is in work; f1 and f2 are dropped for f4 and f5
        await queue.put(frame(number))
        await settle()
    queue.close()
    for number in (0, 3, 4, 5):
        await gates.open(f"f{number}")
    outcomes = await collect(queue)
    assert [outcome.frame_id for outcome in outcomes] == [f"f{number}" for number in range(6)]
    dropped = [outcome.frame_id for outcome in outcomes if isinstance(outcome.result, FrameDroppedError)]
    assert dropped == ["f1", "f2"]
    dropped_frames = [sequence for sequence, result in told(queue).ends if result is FrameResult.DROPPED]
    assert dropped_frames == [1, 2]
    assert not told(queue).open


async def test_drop_oldest_drops_the_new_frame_if_all_others_have_started() -> None:
    gates = Gates()
    config = replace(CONFIG, overflow=OverflowPolicy.DROP_OLDEST, max_in_flight=1)
    queue = frame_queue(config, gates.inspect, max_active=1)
    await queue.put(frame(0))
    await settle()
    await queue.put(frame(1))
    queue.close()
    await gates.open("f0")
    first, second = await collect(queue)
    assert fine(first)
    assert isinstance(second.result, FrameDroppedError)


async def test_drop_oldest_keeps_the_queue_bounded_if_nobody_reads() -> None:
    gates = Gates()
    config = replace(CONFIG, overflow=OverflowPolicy.DROP_OLDEST)
    queue = frame_queue(config, gates.inspect, max_active=1)

    async def flood() -> None:
        for number in range(10_000):
            await queue.put(frame(number))

    sender = asyncio.create_task(flood())
    await settle()
    assert not sender.done()
    assert len(queue._entries) < 100
    sender.cancel()
    queue.__exit__()


async def test_a_late_frame_is_answered_with_a_deadline_error_and_the_stream_goes_on() -> None:
    gates = Gates()
    queue = frame_queue(replace(CONFIG, frame_timeout_s=0.02), gates.inspect, max_active=1)
    await queue.put(frame(0))  # never done
    await queue.put(frame(1))  # never started
    events = queue.events()
    first, second = await anext(events), await anext(events)
    assert isinstance(first, FrameOutcome)
    assert isinstance(first.result, DeadlineError)
    assert isinstance(second, FrameOutcome)
    assert isinstance(second.result, DeadlineError)
    next_outcome = asyncio.ensure_future(anext(events))
    await queue.put(frame(2))
    await gates.open("f2")
    third = await next_outcome
    assert isinstance(third, FrameOutcome)
    assert fine(third)


@pytest.mark.parametrize("error", [UndecodableImageError("no"), RuntimeError("a bug")])
async def test_an_error_affects_only_its_own_frame(error: Exception) -> None:
    gates = Gates()
    queue = frame_queue(CONFIG, gates.inspect, max_active=4)
    await queue.put(frame(0))
    await queue.put(frame(1))
    queue.close()
    await gates.open("f0", error)
    await gates.open("f1")
    first, second = await collect(queue)
    assert (type(first.result), str(first.result)) == (type(error), str(error))
    assert fine(second)


async def test_notices_are_sent_between_outcomes() -> None:
    queue = frame_queue(CONFIG, Gates().inspect, max_active=4)
    queue.notify(StreamNotice(NoticeKind.DRAINING, "bye"))
    queue.close()
    assert [event async for event in queue.events()] == [StreamNotice(NoticeKind.DRAINING, "bye")]


async def test_the_end_of_the_block_ends_all_work_and_releases_all_permits() -> None:
    gates = Gates()
    queue = frame_queue(CONFIG, gates.inspect, max_active=2)
    for number in range(4):
        await queue.put(frame(number))
    await settle()
    queue.__exit__()
    await settle()
    assert all(result.cancelled() for result in gates.results.values())
    assert len(asyncio.all_tasks()) == 1
    assert_nothing_is_held(queue)


@settings(max_examples=60, deadline=None)
@given(
    max_in_flight=st.integers(1, 5),
    max_active=st.integers(1, 4),
    overflow=st.sampled_from(OverflowPolicy),
    ordering=st.sampled_from(ResultOrdering),
    frames=st.lists(st.sampled_from(["fine", "bad", "slow"]), max_size=40),
)
def test_every_accepted_frame_has_exactly_one_outcome(
    max_in_flight: int, max_active: int, overflow: OverflowPolicy, ordering: ResultOrdering, frames: list[str]
) -> None:
    async def inspect(frame: Frame) -> Any:
        kind = frames[int(frame.frame_id)]
        for _ in range(3 if kind == "slow" else 1):
            await asyncio.sleep(0)
        if kind == "bad":
            raise UndecodableImageError("no")
        return kind

    async def run() -> list[FrameOutcome]:
        config = replace(CONFIG, max_in_flight=max_in_flight, overflow=overflow, ordering=ordering)
        queue = frame_queue(config, inspect, max_active=max_active)

        async def send() -> None:
            for number in range(len(frames)):
                await queue.put(Frame(str(number), None, b""))
            queue.close()

        sender = asyncio.create_task(send())
        outcomes = await collect(queue)
        await sender
        return outcomes

    outcomes = asyncio.run(run())
    assert sorted(outcome.sequence for outcome in outcomes) == list(range(len(frames)))
    if ordering is ResultOrdering.INPUT:
        assert [outcome.sequence for outcome in outcomes] == list(range(len(frames)))
    for outcome in outcomes:
        assert outcome.frame_id == str(outcome.sequence)
        if overflow is OverflowPolicy.BLOCK:
            assert isinstance(outcome.result, UndecodableImageError) == (frames[outcome.sequence] == "bad")


async def inspect_slowly(frame: Frame) -> Any:
    for _ in range(2):
        await asyncio.sleep(0)
    return frame.frame_id


async def stream(queue: FrameQueue, frames: int, taken: int) -> None:
    """Send frames, and leave the stream after so many results."""

    async def send() -> None:
        for number in range(frames):
            await queue.put(Frame(str(number), None, b"1234"))
        queue.close()

    with queue:
        sender = asyncio.create_task(send())
        try:
            async for event in queue.events():
                if isinstance(event, FrameOutcome) and event.sequence >= taken:
                    break
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)


@settings(max_examples=60, deadline=None)
@given(
    overflow=st.sampled_from(OverflowPolicy),
    frames=st.integers(1, 12),
    taken=st.integers(0, 12),
    turns=st.integers(0, 12),
    cancelled_again=st.booleans(),
)
def test_every_end_of_a_stream_releases_all_permits(
    overflow: OverflowPolicy, frames: int, taken: int, turns: int, cancelled_again: bool
) -> None:
    """The caller leaves after some results, or its task is cancelled at any moment, even twice."""

    async def run() -> None:
        queue = frame_queue(replace(CONFIG, overflow=overflow), inspect_slowly, max_active=2, max_images=4)
        task = asyncio.create_task(stream(queue, frames, taken))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        if cancelled_again:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settle()
        assert_nothing_is_held(queue)

    asyncio.run(run())
