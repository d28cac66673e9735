"""Admission over several fronts decides as one process does, and gives back what a front held that was killed."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from fakes.waiting import settle
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.fronts.ledger_memory import LedgerMemory
from patchserve_server.fronts.shared_ledger import SharedLedger
from patchserve_server.serving.admission import NOTHING, Admission, Capacity, Permit
from patchserve_server.serving.fairness import FlowKey

MESSAGE = Capacity(1, 100)
LIMIT = Capacity(8, 800)


class Fronts:
    """The admissions of several fronts, each with an opening of its own of the same memory."""

    def __init__(self, stack: ExitStack, count: int = 3, share: float = 1.0, clients: int = 64) -> None:
        file = LedgerMemory.create()
        stack.callback(os.close, file)
        self.memories = [LedgerMemory(file, ledgers=2, fronts=count, clients=clients) for _ in range(count)]
        for memory in self.memories:
            stack.callback(memory.close)
        self.admissions = [
            Admission("image", LIMIT, share=share, largest=MESSAGE, ledger=SharedLedger(memory, 1, front, self._wake))
            for front, memory in enumerate(self.memories)
        ]

    def _wake(self, front: int) -> None:
        asyncio.get_running_loop().call_soon(self.admissions[front].grant_pending)

    def kill(self, front: int) -> None:
        """What the parent does when a front has ended."""
        self.memories[-1].clear(1, front)
        for number, admission in enumerate(self.admissions):
            if number != front:
                admission.grant_pending()


@pytest.fixture
def fronts() -> Iterator[Fronts]:
    with ExitStack() as stack:
        yield Fronts(stack)


def test_what_one_front_admits_counts_for_the_others(fronts: Fronts) -> None:
    one, other, _ = fronts.admissions
    permits = [one.acquire("a", Capacity(5, 500)), other.acquire("b", Capacity(3, 300))]
    for admission in fronts.admissions:
        assert admission.held == LIMIT
        with pytest.raises(QueueFullError, match="The server has reached its limit"):
            admission.acquire("c", Capacity(1))
    permits[0].release()
    assert other.held == Capacity(3, 300)
    assert other.acquire("c", Capacity(5, 500))


def test_a_client_has_one_share_over_all_fronts() -> None:
    with ExitStack() as stack:
        one, other, _ = Fronts(stack, share=0.5).admissions
        one.acquire("a", Capacity(3))
        other.acquire("a", Capacity(1))
        with pytest.raises(QueueFullError, match="This client has reached its limit"):
            one.acquire("a", Capacity(1))
        assert one.acquire("b", Capacity(2))


def test_the_rows_of_a_front_that_was_killed_are_free_again(fronts: Fronts) -> None:
    one, other, _ = fronts.admissions
    one.acquire("a", Capacity(6, 600))
    kept = other.acquire("a", Capacity(2, 200))
    fronts.kill(0)
    assert other.held == Capacity(2, 200)
    kept.release()
    assert other.held == NOTHING
    assert other.acquire("b", LIMIT)


async def test_a_stream_gets_what_another_front_releases(fronts: Fronts) -> None:
    one, other, _ = fronts.admissions
    held = [await one.acquire_for_stream(FlowKey("a", 1), MESSAGE) for _ in range(4)]
    waiting = asyncio.create_task(other.acquire_for_stream(FlowKey("b", 1), MESSAGE))
    await settle()
    assert not waiting.done()
    held[0].release()
    assert (await asyncio.wait_for(waiting, 10)).capacity == MESSAGE
    assert one.held == Capacity(4, 400)


async def test_a_stream_gets_what_a_killed_front_held(fronts: Fronts) -> None:
    one, other, _ = fronts.admissions
    for _ in range(4):
        await one.acquire_for_stream(FlowKey("a", 1), MESSAGE)
    waiting = asyncio.create_task(other.acquire_for_stream(FlowKey("b", 1), MESSAGE))
    await settle()
    fronts.kill(0)
    assert (await asyncio.wait_for(waiting, 10)).capacity == MESSAGE


async def test_a_killed_front_leaves_no_turn_behind(fronts: Fronts) -> None:
    one, other, third = fronts.admissions
    held = [await third.acquire_for_stream(FlowKey("c", 1), MESSAGE) for _ in range(4)]
    dead = asyncio.create_task(one.acquire_for_stream(FlowKey("a", 1), MESSAGE))
    await settle()
    waiting = asyncio.create_task(other.acquire_for_stream(FlowKey("b", 1), MESSAGE))
    await settle()
    fronts.kill(0)
    held[0].release()
    assert await asyncio.wait_for(waiting, 10)
    dead.cancel()


async def test_clients_take_turns_over_all_fronts(fronts: Fronts) -> None:
    one, other, _ = fronts.admissions
    held = [await one.acquire_for_stream(FlowKey("x", 1), MESSAGE) for _ in range(4)]
    admitted: list[str] = []

    async def wait(admission: Admission, client: str, stream: int) -> None:
        with await admission.acquire_for_stream(FlowKey(client, stream), MESSAGE):
            admitted.append(client)
            await settle()

    # The greedy client waits in both fronts, and began first.
    plan = [(one, "greedy", 2), (other, "greedy", 3)] * 3 + [(one, "b", 4), (other, "c", 5)]
    waiting = []
    for admission, client, stream in plan:
        waiting.append(asyncio.create_task(wait(admission, client, stream)))
        await settle()
    held[0].release()
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert admitted == ["greedy", "b", "c"] + ["greedy"] * 5


@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.3, 1.0]))
def test_limits_hold_and_nothing_leaks_whatever_happens(seed: int, share: float) -> None:
    chance = random.Random(seed)
    with ExitStack() as stack:
        fronts = Fronts(stack, share=share, clients=40)
        held: list[tuple[int, Permit]] = []
        for _ in range(120):
            match chance.choice(["acquire", "acquire", "grow", "release", "kill"]):
                case "acquire":
                    front = chance.randrange(3)
                    try:
                        capacity = Capacity(chance.randint(0, 3), chance.randint(0, 300))
                        held.append((front, fronts.admissions[front].acquire(f"c{chance.randrange(9)}", capacity)))
                    except QueueFullError:
                        pass
                case "grow" if held:
                    with suppress(QueueFullError):
                        chance.choice(held)[1].grow(Capacity(chance.randint(0, 4), chance.randint(0, 400)))
                case "release" if held:
                    held.pop(chance.randrange(len(held)))[1].release()
                case "kill" if chance.random() < 0.1:
                    front = chance.randrange(3)
                    fronts.kill(front)
                    # A new process takes its place.
                    held = [(each, permit) for each, permit in held if each != front]
                    ledger = SharedLedger(fronts.memories[front], 1, front, lambda _: None)
                    fronts.admissions[front] = Admission("image", LIMIT, share=share, largest=MESSAGE, ledger=ledger)
            expected = sum((permit.capacity for _, permit in held), NOTHING)
            assert expected.fits(LIMIT)
            assert {admission.held for admission in fronts.admissions} == {expected}
        for _, permit in held:
            permit.release()
        assert not any(fronts.memories[0].numbers(fronts.memories[0].totals_at(1, 0), 15))
