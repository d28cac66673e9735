"""How long a stream waits before it connects again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client import Unavailable
from patchserve_client._backoff import Backoff
from patchserve_client._errors import ErrorDetails

RESUME_FOR_S = 60.0


def error(retry_after_s: float | None) -> Unavailable:
    return Unavailable("The server is shutting down.", ErrorDetails(retry_after_s=retry_after_s))


@given(st.lists(st.none() | st.floats(0, RESUME_FOR_S), min_size=1, max_size=8))
def test_a_wait_is_never_shorter_than_the_server_asks_for(told: list[float | None]) -> None:
    backoff = Backoff(RESUME_FOR_S, clock=lambda: 0.0)
    for each in told:
        delay_s = backoff.delay_s(error(each))
        assert delay_s is not None
        assert (each or 0.05) <= delay_s <= max(2.5, 1.25 * (each or 0.0))
        assert delay_s <= RESUME_FOR_S


def test_a_stream_is_not_resumed_if_its_time_passes_before() -> None:
    now_s = 0.0
    backoff = Backoff(RESUME_FOR_S, clock=lambda: now_s)
    assert backoff.delay_s(error(59.0)) == pytest.approx(59.5, abs=0.5)
    now_s = 58.0
    assert backoff.delay_s(error(3.0)) is None
    assert backoff.delay_s(error(1.0)) is not None
