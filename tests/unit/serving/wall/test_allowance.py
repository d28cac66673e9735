"""Allowance: it never allows more than its rate and its burst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.serving.wall.allowance import Allowance

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
