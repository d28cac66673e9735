"""LogInterval: every event is in exactly one line, and lines keep their distance."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.serving.log_interval import LogInterval


@given(st.lists(st.floats(0, 30), max_size=50))
def test_every_event_is_counted_once_and_lines_keep_their_distance(pauses_s: list[float]) -> None:
    now_s, told, lines_s = 100.0, 0, list[float]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now_s)
        interval = LogInterval(10)
        for pause_s in pauses_s:
            now_s += pause_s
            if (due := interval.count()) is not None:
                told += due[0]
                lines_s.append(now_s)
        now_s += 11
        due = interval.count()
    assert due is not None
    assert told + due[0] == len(pauses_s) + 1
    assert all(later - sooner >= 10 for sooner, later in itertools.pairwise(lines_s))
