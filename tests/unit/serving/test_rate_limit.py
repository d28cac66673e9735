"""RateLimit: in any time, no more than the burst and what the rate adds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.serving.rate_limit import RateLimit

PER_S, BURST = 4.0, 3


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_no_interval_has_more_than_the_burst_and_the_rate(pauses_s: list[float]) -> None:
    now_s, taken_at_s = 0.0, list[float]()
    limit = RateLimit(PER_S, BURST, lambda: now_s)
    for pause_s in pauses_s:
        now_s += pause_s
        if limit.take():
            taken_at_s.append(now_s)
    for first, start_s in enumerate(taken_at_s):
        for last in range(first, len(taken_at_s)):
            assert last - first + 1 <= BURST + PER_S * (taken_at_s[last] - start_s) + 1e-6


def test_after_a_pause_the_burst_is_back() -> None:
    now_s = 0.0
    limit = RateLimit(PER_S, BURST, lambda: now_s)
    assert [limit.take() for _ in range(5)] == [True] * 3 + [False] * 2
    now_s += 0.25
    assert [limit.take() for _ in range(2)] == [True, False]
    now_s += 100
    assert [limit.take() for _ in range(5)] == [True] * 3 + [False] * 2
