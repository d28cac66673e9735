"""The parts of `patchserve bench`: schedule, search, latencies, an open loop."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from threading import Event
from typing import Any, cast

import numpy as np
import pytest
from fakes.waiting import until
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client import ResourceExhausted
from patchserve_client.bench.arrivals import Arrivals, arrival_times_s
from patchserve_client.bench.load import Connection, UnaryLoad, waited_until
from patchserve_client.bench.search import find_limit
from patchserve_client.bench.step import Outcome, Recorder, Step, percentile_of
from patchserve_client.cli._bench_chart import chart_lines


def step(rate: float, outcome: Outcome = Outcome.KEPT, p50_ms: float = 10, p99_ms: float = 20) -> Step:
    return Step(rate, 1, 10, 10, {}, rate, p50_ms, p99_ms, p99_ms, p99_ms, 0, 0, 0.1, outcome, is_client_limited=False)


@given(st.floats(0.5, 500), st.floats(0.01, 4))
def test_fixed_arrivals_have_equal_times_between_them(rate: float, duration_s: float) -> None:
    times = list(arrival_times_s(Arrivals.FIXED, rate, duration_s, seed=0))
    assert len(times) == pytest.approx(rate * duration_s, abs=1.01)
    assert all(later - earlier == pytest.approx(1 / rate) for earlier, later in pairwise(times))


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_callers() -> None:
    times = list(arrival_times_s(Arrivals.POISSON, 100, 100, seed=1))
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps.std() == pytest.approx(0.01, rel=0.05)
    assert times == list(arrival_times_s(Arrivals.POISSON, 100, 100, seed=1))
    assert times != list(arrival_times_s(Arrivals.POISSON, 100, 100, seed=2))


@given(st.lists(st.floats(0, 1e3), min_size=1), st.floats(1, 100))
def test_percentiles_are_those_of_numpy(values: list[float], percentile: float) -> None:
    expected = np.percentile(values, percentile, method="inverted_cdf")
    assert percentile_of(array("d", values), percentile) == expected


@dataclass
class Capacity:
    """A server that keeps the objective up to a rate."""

    limit: float
    rates: list[float] = field(default_factory=list)
    stops_after: int = 1000

    async def measure(self, rate: float) -> Step | None:
        self.rates.append(rate)
        if len(self.rates) > self.stops_after:
            return None
        return step(rate, Outcome.KEPT if rate <= self.limit else Outcome.TOO_SLOW)


@given(st.floats(0.1, 3000), st.floats(0.1, 3000))
def test_the_search_ends_close_to_the_limit_from_any_start(limit: float, start: float) -> None:
    server = Capacity(limit)
    asyncio.run(find_limit(server.measure, start, 10_000))
    kept = [rate for rate in server.rates if rate <= limit]
    broken = [rate for rate in server.rates if rate > limit]
    assert min(broken) / max(kept) <= 1.08
    assert len(server.rates) <= 30


def test_the_search_respects_the_largest_rate_and_an_interruption() -> None:
    server = Capacity(1e9)
    asyncio.run(find_limit(server.measure, 10, 35))
    assert server.rates == [10, 20, 35]
    server = Capacity(1e9, stops_after=2)
    asyncio.run(find_limit(server.measure, 10, 1000))
    assert server.rates == [10, 20, 40]


def test_a_server_that_answers_nothing_is_not_tried_again() -> None:
    rates = []

    async def measure(rate: float) -> Step:
        rates.append(rate)
        return replace(step(rate, Outcome.FAILED), completed=0)

    asyncio.run(find_limit(measure, 10, 1000))
    assert rates == [10]


def test_a_server_that_keeps_no_rate_ends_the_search() -> None:
    server = Capacity(0.0)
    asyncio.run(find_limit(server.measure, 10, 1000))
    assert server.rates == sorted(server.rates, reverse=True)
    assert min(server.rates) >= 0.05


class Held:
    """A server that answers nothing until it is told to."""

    def __init__(self, answer: Callable[[], None] = lambda: None) -> None:
        self.sent = 0
        self.may_answer = asyncio.Event()
        self._answer = answer

    async def send(self, call: Any, timeout_s: float) -> None:
        self.sent += 1
        await self.may_answer.wait()
        self._answer()


def unary(server: Held, max_outstanding: int = 1000) -> UnaryLoad:
    return UnaryLoad([cast(Connection, server)], cast(Any, [None]), 1.0, max_outstanding)


async def test_images_are_sent_when_they_are_due_whatever_the_answers_do() -> None:
    server, recorder = Held(), Recorder()
    running = asyncio.create_task(unary(server).run([0.001 * number for number in range(50)], recorder, Event()))
    await until(lambda: server.sent == 50)  # although there was no answer
    await asyncio.sleep(0.05)
    server.may_answer.set()
    await running
    result = recorder.step(1000, objective_ms=50, percentile=50, is_paced_by_server=False)
    # The first image waited for 100 ms, the last one for 50: nobody was spared by not being sent.
    assert result.max_ms is not None
    assert result.p50_ms is not None
    assert result.max_ms >= result.p50_ms >= 50
    assert (result.completed, result.outcome) == (50, Outcome.TOO_SLOW)


async def test_a_late_image_counts_from_the_time_at_which_it_was_due() -> None:
    recorder = Recorder()
    recorder.sent(recorder.started_s - 0.5)
    recorder.completed(recorder.started_s - 0.5)
    result = recorder.step(1, objective_ms=100, percentile=99, is_paced_by_server=False)
    assert result.p99_ms is not None
    assert result.p99_ms >= 500
    assert result.late_p99_ms >= 500
    assert result.is_client_limited


async def test_what_is_on_its_way_is_bounded() -> None:
    server, recorder = Held(), Recorder()
    running = asyncio.create_task(unary(server, max_outstanding=7).run([0.0] * 100, recorder, Event()))
    await until(lambda: server.sent == 7)
    server.may_answer.set()
    await running
    result = recorder.step(100, objective_ms=1e6, percentile=99, is_paced_by_server=False)
    assert (result.sent, result.failed, result.outcome) == (7, {"NOT_SENT": 1}, Outcome.FAILED)


async def test_an_error_is_counted_by_its_reason_and_breaks_the_objective() -> None:
    def refuse() -> None:
        raise ResourceExhausted("full")

    server, recorder = Held(refuse), Recorder()
    server.may_answer.set()
    await unary(server).run([0.0, 0.0], recorder, Event())
    result = recorder.step(2, objective_ms=1e6, percentile=99, is_paced_by_server=False)
    assert (result.failed, result.outcome, result.p99_ms) == ({"RESOURCE_EXHAUSTED": 2}, Outcome.FAILED, None)


async def test_ctrl_c_ends_a_step_at_once() -> None:
    end = Event()
    end.set()
    assert not await waited_until(1e12, end)
    server, recorder = Held(), Recorder()
    await unary(server).run([0.0] * 10, recorder, end)
    assert server.sent == 0


def test_a_lag_of_the_own_event_loop_is_told_and_waits_of_a_stream_are_not() -> None:
    recorder = Recorder()
    recorder.sent(recorder.started_s - 1)
    recorder.completed(recorder.started_s)
    assert not recorder.step(1, 200, 99, is_paced_by_server=True).is_client_limited
    recorder.lagged(0.5)
    assert recorder.step(1, 200, 99, is_paced_by_server=True).is_client_limited


def test_the_chart_has_a_line_for_each_step_in_the_order_of_rates() -> None:
    title, first, second = chart_lines([step(20, p99_ms=5000), step(10, p50_ms=3)], objective_ms=100)
    assert "3 ms" in title
    assert first.split()[0] == "10"
    assert second.split()[0] == "20"
    assert first.index("o") < first.index("x") < first.index("|")
    assert second.index("|") < second.index("x")
    assert list(chart_lines([], 100)) == []
