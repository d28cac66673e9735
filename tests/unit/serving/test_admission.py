"""Admission: never more than the bound, nothing leaks, and everybody gets in."""

from __future__ import annotations

import asyncio
import random

import pytest

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.serving.admission import Admission, Capacity, Permit
from patchserve_server.serving.fairness import FlowKey

MESSAGE = Capacity(1, 100)


def admission(places: int = 8, size: int = 800, share: float = 1.0) -> Admission:
    return Admission("images", Capacity(places, size), share=share, largest=MESSAGE)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("room", [Capacity(9, 0), Capacity(1, 801)])
def test_a_single_call_over_the_bound_is_refused_with_a_delay(room: Capacity) -> None:
    with pytest.raises(QueueFullError, match="try again") as caught:
        admission().take("a", room)
    assert caught.value.retry_after_s


def test_refusals_are_told_in_sum(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    bound = admission()

    def refused(times: int) -> None:
        for _ in range(times):
            with pytest.raises(QueueFullError):
                bound.take("a", Capacity(9))

    refused(5)
    now_s += 10
    refused(2)
    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == ["1", "5"]


def test_places_come_back() -> None:
    bound = admission(places=2)
    first, second = bound.take("a", Capacity(1)), bound.take("b", Capacity(1))
    with pytest.raises(QueueFullError):
        bound.take("c", Capacity(1))
    first.release()
    first.release()
    with bound.take("c", Capacity(1)), pytest.raises(QueueFullError):
        bound.take("d", Capacity(1))
    second.release()
    assert bound.take("a", Capacity(2))


def test_one_client_does_not_take_all() -> None:
    bound = admission(places=8, share=0.25)
    assert bound.per_client == Capacity(2, 200)
    bound.take("greedy", Capacity(1, 100))
    bound.take("greedy", Capacity(1, 0))
    for more in (Capacity(1), Capacity(0, 101)):
        with pytest.raises(QueueFullError, match="one client"):
            bound.take("greedy", more)
    assert bound.take("other", Capacity(1, 100))


def test_a_share_is_never_less_than_a_message() -> None:
    assert admission(places=2, size=150, share=0.1).per_client == Capacity(1, 100)


def test_streams_leave_half_to_single_calls() -> None:
    async def run() -> None:
        bound, flow = admission(), FlowKey("a", 1)
        frames = [bound.take_for_stream(flow, Capacity(1, 10)) for _ in range(6)]
        assert [frame is not None for frame in frames] == [True] * 4 + [False] * 2
        assert bound.take("b", Capacity(4))

    asyncio.run(run())


async def test_while_a_stream_waits_single_calls_leave_it_half() -> None:
    bound = admission()
    calls = [bound.take("calls", Capacity(1)) for _ in range(8)]
    frame = asyncio.create_task(bound.wait(FlowKey("camera", 1), Capacity(1, 10)))
    await settle()
    assert not frame.done()
    calls.pop().release()
    assert (await frame).room == Capacity(1, 10)
    frames = [asyncio.create_task(bound.wait(FlowKey("camera", 1), Capacity(1, 10))) for _ in range(3)]
    await settle()
    for _ in range(3):
        calls.pop().release()
        with pytest.raises(QueueFullError):
            bound.take("calls", Capacity(1))
    assert all([await frame for frame in frames])
    assert len(calls) == 4


async def test_streams_of_a_client_leave_half_of_its_share_to_its_single_calls() -> None:
    bound = admission(places=16, size=1600, share=0.5)
    frames = [bound.take_for_stream(FlowKey("a", 1 + number % 4), Capacity(1, 10)) for number in range(8)]
    assert [frame is not None for frame in frames] == [True] * 4 + [False] * 4
    assert bound.take("a", Capacity(4))
    with pytest.raises(QueueFullError, match="one client"):
        bound.take("a", Capacity(1))


async def test_a_batch_of_more_than_half_a_clients_share_comes_in_alone() -> None:
    bound = admission(places=16, size=1600, share=0.5)
    frame = await bound.wait(FlowKey("a", 1), Capacity(1, 10))
    batch = asyncio.create_task(bound.wait(FlowKey("a", 2), Capacity(8, 80)))
    await settle()
    assert not batch.done()
    frame.release()
    assert (await asyncio.wait_for(batch, 10)).room == Capacity(8, 80)


async def test_streams_and_clients_take_turns() -> None:
    bound, order = admission(places=2), []
    held = await bound.wait(FlowKey("x", 1), MESSAGE)

    async def wait(client: str, stream: int) -> None:
        with await bound.wait(FlowKey(client, stream), MESSAGE):
            order.append((client, stream))

    waiting = [asyncio.create_task(wait(*flow)) for flow in [("a", 1)] * 3 + [("a", 2), ("b", 3)]]
    await settle()
    held.release()
    await asyncio.gather(*waiting)
    assert order == [("a", 1), ("b", 3), ("a", 2), ("a", 1), ("a", 1)]


async def test_who_has_its_share_does_not_hold_up_others() -> None:
    bound = admission(places=8, share=0.5)
    for _ in range(2):
        await bound.wait(FlowKey("greedy", 1), Capacity(1))
    blocked = asyncio.create_task(bound.wait(FlowKey("greedy", 1), Capacity(1)))
    await settle()
    assert await asyncio.wait_for(bound.wait(FlowKey("other", 2), Capacity(1)), 10)
    assert not blocked.done()
    blocked.cancel()


async def test_small_frames_do_not_keep_out_a_large_one() -> None:
    bound = admission(places=100, size=200)  # streams: 100
    held = await bound.wait(FlowKey("a", 1), Capacity(1, 60))
    large = asyncio.create_task(bound.wait(FlowKey("b", 2), Capacity(1, 100)))
    await settle()
    assert bound.take_for_stream(FlowKey("a", 1), Capacity(1, 10)) is None
    small = asyncio.create_task(bound.wait(FlowKey("a", 1), Capacity(1, 10)))
    await settle()
    held.release()
    (await large).release()
    assert await small


async def test_an_answer_larger_than_its_image_is_counted() -> None:
    bound = admission(places=8, size=800)
    hold = await bound.wait(FlowKey("a", 1), Capacity(1, 10))
    hold.resize(750)
    with pytest.raises(QueueFullError):
        bound.take("b", Capacity(1, 60))
    hold.release()
    hold.resize(750)
    assert bound.take("b", Capacity(1, 800))


async def test_a_wait_that_is_given_up_makes_way() -> None:
    bound = admission(places=100, size=200)
    held = await bound.wait(FlowKey("a", 1), Capacity(1, 50))
    large = asyncio.create_task(bound.wait(FlowKey("b", 2), Capacity(1, 100)))
    small = asyncio.create_task(bound.wait(FlowKey("c", 3), Capacity(1, 10)))
    await settle()
    assert not small.done()
    large.cancel()
    assert await asyncio.wait_for(small, 10)
    held.release()


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_leaves_at_whatever_moment_nothing_is_lost_or_exceeded(seed: int) -> None:
    chance, bound, under_way = random.Random(seed), admission(places=8, size=800, share=0.5), Capacity()

    async def use(hold: Permit) -> None:
        nonlocal under_way
        with hold:
            under_way += (room := hold.room)
            assert under_way.fits(bound.bound)
            try:
                await asyncio.sleep(0)
            finally:
                under_way -= room

    async def call() -> None:
        room = Capacity(1, chance.randrange(1, 100))
        if chance.random() < 0.5:
            await use(await bound.wait(FlowKey(chance.choice("abc"), chance.randrange(1, 3)), room))
            return
        try:
            hold = bound.take(chance.choice("abc"), room)
        except QueueFullError:
            return
        await use(hold)

    tasks = [asyncio.create_task(call()) for _ in range(60)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        chance.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [result for result in results if isinstance(result, Exception)]
    for client in "ab":
        assert bound.take(client, Capacity(4, 400)), "all of it is free again"
