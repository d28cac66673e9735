"""The steps of an image, and how timed work is told."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import DrainingError
from patchserve_server.domain.work_events import Stage, StepLog, Wait, told

steps = st.sampled_from([*Stage, *Wait, None])


@given(st.lists(steps))
def test_steps_follow_each_other_without_overlap_and_none_is_lost(entered: list[Stage | Wait | None]) -> None:
    log = StepLog()
    for what in entered:
        log.enter(what)
    log.enter(None)
    changes = [what for before, what in zip([None, *entered], entered, strict=False) if what is not before]
    assert [step.what for step in log.steps] == [what for what in changes if what is not None]
    for one, following in zip(log.steps, log.steps[1:], strict=False):
        assert one.started_at_s + one.duration_s <= following.started_at_s + 1e-9
    assert log.waited_s + sum(map(log.took_s, Stage)) == pytest.approx(sum(step.duration_s for step in log.steps))


def test_the_wait_for_a_batch_becomes_what_the_batch_was() -> None:
    log = StepLog()
    start_s = log.enter(Wait.BATCH)
    log.end_batch(1.0, 2.0, 3.0)
    log.enter(Stage.RENDER)
    assert [(step.what, step.started_at_s - start_s, step.duration_s) for step in log.steps] == [
        (Wait.BATCH, 0.0, 1.0),
        (Stage.EMBED, 1.0, 2.0),
        (Stage.SEARCH, 3.0, 3.0),
    ]
    assert log.began_at_s == start_s


def test_what_the_device_decodes_comes_after_the_wait() -> None:
    log = StepLog()
    start_s = log.enter(Wait.BATCH)
    log.end_batch(1.0, 2.0, 3.0, decode_s=0.5)
    assert [(step.what, step.started_at_s - start_s) for step in log.steps] == [
        (Wait.BATCH, 0.0),
        (Stage.DECODE, 1.0),
        (Stage.EMBED, 1.5),
        (Stage.SEARCH, 3.5),
    ]
    assert log.took_s(Stage.DECODE) == 0.5


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, ""),
        (DrainingError(), "DRAINING"),
        (ValueError("a bug"), "INTERNAL"),
        (asyncio.CancelledError(), "CANCELLED"),
    ],
)
def test_the_end_is_told_once_on_every_path(error: BaseException | None, reason: str) -> None:
    heard: list[tuple[str, float, float]] = []

    def work() -> None:
        with told(lambda *how: heard.append(how)):
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    [(said, started_at_s, duration_s)] = heard
    assert said == reason
    assert started_at_s > 0
    assert duration_s >= 0
