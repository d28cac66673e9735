"""Which call that waits for its caller ends when another one needs its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from patchserve_server.domain.errors import IdleCallError
from patchserve_server.serving.waiting_calls import Waiting, WaitingCalls

CALLS, LOADS = "calls", "loads"
IDLE = IdleCallError("idle")
NEVER = float("inf")


class Scene:
    """Calls that wait, the longest first, and what they gave back."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.waiting = WaitingCalls()
        self.ended: list[str] = []

    async def add(self, client: str, keeps_s: dict[object, float]) -> None:
        limit = asyncio.timeout(None)
        name = f"{client}{len(self.waiting)}"
        await limit.__aenter__()
        self._stack.enter_context(self.waiting.add(Waiting(client, keeps_s, lambda: self.ended.append(name), limit)))


@contextmanager
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack)


async def test_an_ended_call_gets_the_error_and_gives_back_at_once() -> None:
    waiting, given_back = WaitingCalls(), list[str]()

    async def call() -> None:
        limit = asyncio.timeout(None)
        async with limit:
            with waiting.add(Waiting("a", {CALLS: 0.0}, lambda: given_back.append("a"), limit)):
                await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    assert waiting.end_overdue(CALLS, IDLE)
    assert given_back == ["a"], "before the call has noticed"
    assert not waiting.end_overdue(CALLS, IDLE), "it is ended once"
    with pytest.raises(TimeoutError):
        await task
    assert len(waiting) == 0


async def test_the_longest_waiting_call_of_the_client_with_the_most_ends_first() -> None:
    with scene() as at:
        for client in "abbab":
            await at.add(client, {CALLS: 0.0})
        assert at.waiting.end_overdue(CALLS, IDLE)
        assert at.ended == ["b1"]


async def test_a_call_keeps_what_it_holds_for_its_time() -> None:
    with scene() as at:
        await at.add("a", {CALLS: NEVER, LOADS: 0.0})
        await at.add("b", {LOADS: NEVER})
        assert not at.waiting.end_overdue(CALLS, IDLE)
        assert not at.waiting.end_overdue(LOADS, IDLE, "b")
        assert at.waiting.end_overdue(LOADS, IDLE)
        assert at.ended == ["a0"]


async def test_a_greedy_client_loses_a_call_to_one_that_has_fewer() -> None:
    with scene() as at:
        for client in "aab":
            await at.add(client, {CALLS: NEVER})
        assert not at.waiting.end_greediest(CALLS, IDLE, "b"), "both have two then"
        assert not at.waiting.end_greediest(CALLS, IDLE, "a"), "never to itself"
        assert at.waiting.end_greediest(CALLS, IDLE, "c")
        assert at.ended == ["a0"]
        assert not at.waiting.end_greediest(CALLS, IDLE, "d"), "one each"


async def test_of_too_many_idle_calls_the_ones_that_waited_longest_end() -> None:
    with scene() as at:
        for client in "abaacaa":
            await at.add(client, {CALLS: 0.0})
        await at.add("a", {CALLS: NEVER})
        at.waiting.end_excess(CALLS, IDLE, 2)
        assert sorted(at.ended) == ["a0", "a2", "a3"]
