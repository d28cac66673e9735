"""What `stream` tells about its camera and its reference, by a clock of the test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client.cli._durations import duration_s, interval_s
from patchserve_client.cli._reconnecting import Reconnecting
from patchserve_client.cli._stream_health import Lag, ReferenceFit

NOW = datetime(2025, 1, 2, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_falling_behind_is_told_every_ten_seconds_while_frames_are_left_out() -> None:
    clock = Clock()
    lag = Lag(clock)
    told = {}
    for second in range(1, 41):
        clock.now_s = second
        skipped = 4 * min(second, 15)
        text = lag.result(NOW, skipped, NOW + timedelta(seconds=second / 10))
        if text is not None:
            told[second] = text
    assert told == {
        10: "Falling behind: 40 of 50 frames were left out at the source in 10 s, and results are 1.0 s behind the "
        "camera.",
        20: "Falling behind: 20 of 30 frames were left out at the source in 10 s, and results are 2.0 s behind the "
        "camera.",
    }
    assert lag.longest_s == 4.0


@pytest.mark.parametrize(("skipped", "is_told"), [(0, False), (4, False), (6, True)])
def test_a_frame_now_and_then_is_not_told(skipped: int, is_told: bool) -> None:
    clock = Clock()
    lag = Lag(clock)
    for _ in range(99):
        lag.result(NOW, 0, NOW)
    clock.now_s = 10
    assert (lag.result(NOW, skipped, NOW) is not None) == is_told


def fit() -> ReferenceFit:
    return ReferenceFit("rtsp://belt", is_folder=False)


def told_by(ratios: list[float], pause_s: float | None = None) -> list[int]:
    """The places of the results after which something is told; the end is one more."""
    reference = fit()
    times = [None if pause_s is None else NOW + timedelta(seconds=pause_s * place) for place in range(len(ratios))]
    texts = [reference.result(ratio, time) for ratio, time in zip(ratios, times, strict=True)]
    return [place for place, text in enumerate([*texts, reference.end()]) if text is not None]


def test_a_stream_that_scores_close_to_the_threshold_names_the_command_for_a_reference() -> None:
    reference = fit()
    texts = [reference.result(0.95 + place / 200, None) for place in range(20)]
    assert texts[:19] == [None] * 19
    assert texts[19] is not None
    assert "20 of the first 20 frames score close to the threshold (0.95 to 1.04 x)" in texts[19]
    assert texts[19].endswith("patchserve reference capture rtsp://belt")


@pytest.mark.parametrize(
    ("ratios", "pause_s", "told"),
    [
        ([1.0] * 60, None, [19]),  # once
        ([1.0] * 60, 0.25, [40]),  # after ten seconds: before, it may be the same item
        ([1.0] * 60, 1.0, [19]),
        ([1.0] * 12, None, [12]),  # at the end
        ([1.0] * 7, None, []),  # too few
        ([0.7] * 40, None, []),  # intact
        ([0.7, 2.5] * 20, None, []),
        ([0.97] * 17 + [0.5] * 3 + [1.0] * 30, None, []),  # 85 %
        ([0.97] * 18 + [0.5] * 2, None, [19]),
        ([2.0] * 40, None, []),  # something else, such as another item
    ],
)
def test_a_reference_that_does_not_fit_is_told_once(
    ratios: list[float], pause_s: float | None, told: list[int]
) -> None:
    assert told_by(ratios, pause_s) == told


def test_the_advice_for_a_folder_is_to_load_from_it() -> None:
    reference = ReferenceFit("new items", is_folder=True)
    texts = [reference.result(1.0, None) for _ in range(20)]
    assert str(texts[-1]).endswith("patchserve reference load 'new items'")  # can be pasted


@given(st.floats(0, 400), st.floats(0, 3))
def test_a_lost_camera_is_tried_for_the_given_time_with_growing_pauses(limit_s: float, attempt_s: float) -> None:
    clock = Clock()
    reconnecting = Reconnecting(limit_s, clock)
    delays_s = []
    while (delay_s := reconnecting.lose()) is not None:
        delays_s.append(delay_s)
        clock.now_s += delay_s + attempt_s + 1e-6
    assert clock.now_s >= limit_s
    assert clock.now_s <= limit_s + attempt_s + 0.001
    assert all(delay_s <= 10 for delay_s in delays_s)
    assert delays_s[:-1] == sorted(delays_s[:-1])
    assert bool(delays_s) == (limit_s > 0)


def test_pauses_start_short_again_after_a_connection_that_lasted() -> None:
    clock = Clock()
    reconnecting = Reconnecting(100, clock)
    assert [reconnecting.lose() for _ in range(3)] == [0.5, 1.0, 2.0]
    reconnecting.frame_came()
    assert reconnecting.lost_for_s == 0
    assert reconnecting.lose() == 4.0  # a camera that is lost again and again
    reconnecting.frame_came()
    clock.now_s = 10
    reconnecting.frame_came()
    assert reconnecting.lose() == 0.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2s", 2),
        ("500ms", 0.5),
        ("1.5m", 90),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("3", 3),
        (".5", 0.5),
        ("0", 0),
        (10.0, 10),
    ],
)
def test_durations_are_read(text: str | float, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 week", "1e3", "nan", "inf", "2s2s", "٣s"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(Exception, match="such as 2s"):
        duration_s(text)


@pytest.mark.parametrize("text", ["0", "0ms"])
def test_an_interval_is_not_zero(text: str) -> None:
    with pytest.raises(Exception, match="longer than 0"):
        interval_s(text)
