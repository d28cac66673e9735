"""Allowance: it never allows more than its rate and its burst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.serving.allowance import Allowance

PER_S, BURST = 4.0, 3
PAUSES_S = st.lists(st.floats(0, 5), max_size=100)


@given(PAUSES_S, st.floats(0.5, 50), st.integers(1, 20))
def test_it_allows_at_most_the_burst_and_what_the_time_has_brought(
    pauses_s: list[float], per_s: float, burst: int
) -> None:
    clock = [0.0]
    allowance = Allowance(per_s, burst, lambda: clock[0])
    taken = 0
    for pause_s in pauses_s:
        clock[0] += pause_s
        taken += allowance.take()
        assert taken <= burst + clock[0] * per_s + 1e-6


def test_after_a_rest_it_allows_the_burst_at_once() -> None:
    clock = [0.0]
    allowance = Allowance(1, 3, lambda: clock[0])
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    clock[0] = 1000
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    clock[0] = 1001
    assert [allowance.take() for _ in range(2)] == [True, False]


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_no_interval_has_more_than_the_burst_and_the_rate(pauses_s: list[float]) -> None:
    now_s, taken_at_s = 0.0, list[float]()
    allowance = Allowance(PER_S, BURST, lambda: now_s)
    for pause_s in pauses_s:
        now_s += pause_s
        if allowance.take():
            taken_at_s.append(now_s)
    for first, start_s in enumerate(taken_at_s):
        for last in range(first, len(taken_at_s)):
            assert last - first + 1 <= BURST + PER_S * (taken_at_s[last] - start_s) + 1e-6


def test_after_a_pause_the_burst_is_back() -> None:
    now_s = 0.0
    allowance = Allowance(PER_S, BURST, lambda: now_s)
    assert [allowance.take() for _ in range(5)] == [True] * 3 + [False] * 2
    now_s += 0.25
    assert [allowance.take() for _ in range(2)] == [True, False]
    now_s += 100
    assert [allowance.take() for _ in range(5)] == [True] * 3 + [False] * 2
