"""Short runs of `make reliability`: the same code and the same promises."""

from __future__ import annotations

import pytest
from reliability import drain, fuzz, kill, overload, soak


async def test_a_short_soak_loses_and_repeats_nothing() -> None:
    found = await soak.run(12)
    assert found["wrong"] == {}
    assert found["errors_in_log"] == 0
    assert found["frames_answered"] == found["frames_sent"] > 0
    assert found["done"].keys() >= {"unary", "stream", "cancelled", "bad input", "change"}
    assert found["idle_after"]["files"] < 200
    assert found["exit_code"] == 0


async def test_after_a_few_kills_every_reference_is_complete() -> None:
    found = await kill.run(3)
    assert found["problems"] == []


async def test_a_few_stops_under_load_answer_every_accepted_frame() -> None:
    found = await drain.run(2)
    assert found["frames_accepted_and_not_answered"] == 0
    assert found["calls_lost"] == 0
    assert found["streams_ended_with"].keys() == {"DRAINING"}
    assert found["exit_codes"] == {"0": 2}


async def test_random_input_causes_no_internal_error() -> None:
    found = await fuzz.run(1500, seed=1)
    assert found["bugs"] == []
    assert found["tracebacks_in_log"] == 0
    assert found["alive_at_the_end"]


@pytest.mark.serial
async def test_overload_is_rejected_and_causes_no_other_error() -> None:
    found = await overload.run(5)
    assert found["other_errors"] == {}
    assert found["refused"] > 0
    assert found["goodput_share"] > 0
