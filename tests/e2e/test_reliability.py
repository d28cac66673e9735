"""Short runs of `make reliability`: the same code and the same promises."""

from __future__ import annotations

import pytest
from reliability import attacks_messages, drain, fuzz, kill, overload, soak


async def test_a_short_soak_loses_and_repeats_nothing() -> None:
    result = await soak.run(12)
    assert result["problems"] == {}
    assert result["errors_in_log"] == 0
    assert result["frames_answered"] == result["frames_sent"] > 0
    assert result["done"].keys() >= {"unary", "stream", "cancelled", "invalid input", "change"}
    assert result["idle_after"]["open_files"] < 200
    assert result["exit_code"] == 0


async def test_after_a_few_kills_every_reference_is_complete() -> None:
    result = await kill.run(3)
    assert result["problems"] == []


async def test_a_few_stops_under_load_answer_every_accepted_frame() -> None:
    result = await drain.run(2)
    assert result["frames_without_result"] == 0
    assert result["calls_lost"] == 0
    assert result["streams_ended_with"].keys() == {"DRAINING"}
    assert result["exit_codes"] == {"0": 2}


async def test_random_input_causes_no_internal_error() -> None:
    result = await fuzz.run(1500, seed=1)
    assert result["bugs"] == []
    assert result["tracebacks_in_log"] == 0
    assert result["alive_at_the_end"]


@pytest.mark.serial
async def test_overload_is_rejected_and_causes_no_other_error() -> None:
    result = await overload.run(5)
    assert result["other_errors"] == {}
    assert result["rejected"] > 0
    assert result["goodput_share"] > 0


@pytest.mark.parametrize("name", ["ModelInfer, empty inputs", "health Watch, long name", "headers only, two addresses"])
async def test_messages_made_to_hurt_take_little_memory_and_keep_nobody_out(name: str) -> None:
    result = await attacks_messages.attacked(name, 24, settled_after_s=0)
    growth_mib = result["rss_peak_mib"] - result["rss_before_mib"]
    assert growth_mib < 256 + 300, "the bytes in progress, and a margin"
    assert result["others_failed"] == []
    assert result["others_calls"] > 0
    assert result["tracebacks_in_log"] == 0
    assert result["exit_code"] == 0
