"""Refusals of a client that has many come later and later, in bounded time and memory."""

from __future__ import annotations

import asyncio

import pytest
from fakes.waiting import settle, until
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.serving.refusal_pacing import BURST, INTERVAL_S, LONGEST_S, MAX_CLIENTS, RefusalPacing


def test_few_refusals_are_answered_at_once_and_many_one_after_the_other() -> None:
    pacing = RefusalPacing(max_delayed=0)
    delays_s = [pacing.take_turn("greedy", now_s=0) for _ in range(BURST + 3)]
    assert max(delays_s[:BURST]) <= 1e-9
    assert delays_s[BURST:] == pytest.approx([INTERVAL_S, 2 * INTERVAL_S, 3 * INTERVAL_S])
    assert pacing.take_turn("modest", now_s=0) <= 0, "another client is not delayed"


def test_a_pause_is_rewarded() -> None:
    pacing = RefusalPacing(max_delayed=0)
    for _ in range(10 * BURST):
        pacing.take_turn("greedy", now_s=0)
    assert pacing.take_turn("greedy", now_s=LONGEST_S + BURST * INTERVAL_S) <= 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 0.1)), max_size=600))
def test_no_client_has_more_than_a_burst_beyond_its_rate(refusals: list[tuple[str, float]]) -> None:
    """Except for those that have waited for the longest time."""
    pacing, now_s = RefusalPacing(max_delayed=0), 0.0
    answered_at_s: dict[str, list[float]] = {"a": [], "b": []}
    for client, pause_s in refusals:
        now_s += pause_s
        delay_s = pacing.take_turn(client, now_s)
        assert delay_s <= LONGEST_S
        if delay_s < LONGEST_S:
            answered_at_s[client].append(now_s + max(delay_s, 0))
    for times_s in answered_at_s.values():
        for position in range(BURST, len(times_s)):
            took_s = times_s[position] - times_s[0]
            assert position <= BURST + took_s / INTERVAL_S + 1e-6


def test_the_clients_that_are_remembered_are_limited() -> None:
    pacing = RefusalPacing(max_delayed=0)
    for number in range(3 * MAX_CLIENTS):
        for _ in range(BURST + 10):
            pacing.take_turn(f"client {number}", now_s=number / 1000)
        assert pacing.remembered <= MAX_CLIENTS


async def test_the_refusals_that_wait_are_limited_and_a_caller_that_leaves_waits_no_longer() -> None:
    pacing = RefusalPacing(max_delayed=2)
    for _ in range(BURST + 100):
        pacing.take_turn("greedy", now_s=asyncio.get_running_loop().time())
    waiting = [asyncio.create_task(pacing.wait("greedy", None)) for _ in range(5)]
    await until(lambda: sum(task.done() for task in waiting) == 3)
    assert pacing.delayed == 2
    for task in waiting:
        task.cancel()
    await settle()
    assert pacing.delayed == 0


async def test_a_refusal_is_answered_before_the_deadline_of_its_call() -> None:
    pacing = RefusalPacing(max_delayed=2)
    for _ in range(BURST + 10_000):
        pacing.take_turn("greedy", now_s=asyncio.get_running_loop().time())
    async with asyncio.timeout(60):
        await pacing.wait("greedy", remaining_s=0.001)
