"""Reading places: limited in number, in turn between clients, and never lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from fakes.waiting import settle
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.serving.reading_places import ReadingPlaces
from patchserve_server.serving.waiting_calls import Waiting, WaitingCalls


def places(
    count: int = 2, per_client: int = 2, max_queue: int = 9, waiting: WaitingCalls | None = None
) -> ReadingPlaces:
    return ReadingPlaces(
        WaitingCalls() if waiting is None else waiting,
        count=count,
        per_client=per_client,
        keeps_s=0.0,
        max_queue=max_queue,
    )


async def read(at: ReadingPlaces, client: str, order: list[str], end: asyncio.Event) -> None:
    async with at.place(client):
        order.append(client)
        await end.wait()


async def test_clients_take_turns() -> None:
    at, order, end = places(count=1), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(read(at, client, order, end)) for client in ("first", "a", "a", "a", "b")]
    await settle()
    assert order == ["first"]
    end.set()
    await asyncio.gather(*tasks)
    assert order == ["first", "a", "b", "a", "a"]


async def test_one_client_gets_only_its_part() -> None:
    at, order, end = places(count=3, per_client=2), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(read(at, client, order, end)) for client in ("a", "a", "a", "b")]
    await settle()
    assert order == ["a", "a", "b"]
    end.set()
    await asyncio.gather(*tasks)


async def test_a_client_with_too_many_calls_in_the_queue_is_rejected() -> None:
    at, order, end = places(count=1, max_queue=1), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(read(at, "a", order, end)) for _ in range(2)]
    await settle()
    with pytest.raises(QueueFullError):
        async with at.place("a"):
            pass
    end.set()
    await asyncio.gather(*tasks)


async def test_a_call_whose_message_does_not_come_loses_its_place_to_one_that_waits() -> None:
    waiting = WaitingCalls()
    at, order = places(count=1, waiting=waiting), list[str]()

    async def silent() -> None:
        limit = asyncio.timeout(None)
        async with at.place("silent") as place, limit:
            with waiting.add(Waiting("silent", {at: 0.0}, place.give_back, limit)):
                await asyncio.Event().wait()

    task = asyncio.create_task(silent())
    await settle()
    end = asyncio.Event()
    end.set()
    await asyncio.wait_for(read(at, "other", order, end), 60)
    assert order == ["other"]
    with pytest.raises(TimeoutError):
        await task


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3))
async def test_no_place_is_lost_whatever_is_cancelled(seed: int, count: int, per_client: int) -> None:
    rng, waiting, held = random.Random(seed), WaitingCalls(), Counter[str]()
    at = places(count, per_client, 3, waiting)

    async def call(client: str) -> None:
        limit = asyncio.timeout(None)
        async with at.place(client) as place, limit:
            held[client] += 1

            def give_back() -> None:
                place.give_back()
                held[client] -= 1

            try:
                assert held.total() <= count
                assert held[client] <= per_client
                with waiting.add(Waiting(client, {at: rng.choice([0.0, 100.0])}, give_back, limit)):
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
            finally:
                if place.is_held:
                    give_back()

    tasks = []
    for _ in range(20):
        tasks.append(asyncio.create_task(call(rng.choice("abc"))))
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            rng.choice(tasks).cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    allowed = (asyncio.CancelledError, TimeoutError, QueueFullError)
    assert all(outcome is None or isinstance(outcome, allowed) for outcome in outcomes), outcomes
    order: list[str] = []
    end = asyncio.Event()
    last = [asyncio.create_task(read(at, f"client {number}", order, end)) for number in range(count)]
    await settle()
    assert len(order) == count, "all places are free"
    end.set()
    await asyncio.gather(*last)
