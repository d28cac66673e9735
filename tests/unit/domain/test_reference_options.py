"""Options check themselves: none can be out of range."""

from __future__ import annotations

import math
from typing import Any

import pytest

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.domain.reference_options import (
    MAX_REGION_POINTS,
    CoresetOptions,
    ReferenceOptions,
    RequestedOptions,
    ScoringProfile,
)

TRIANGLE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
SUBSPACE = {"profile": ScoringProfile.SUBSPACE}
SPREAD = ScoreSpread(1, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ({"ratio": 0.0}, "ratio", "above 0 and at most 1, not 0"),
        ({"ratio": 1.5}, "ratio", "above 0 and at most 1, not 1.5"),
        ({"ratio": math.nan}, "ratio", "not nan"),
        ({"max_patches": 15}, "max_patches", "at least 16, not 15"),
        ({"ratio": 0.5, "max_patches": 100}, "", "not both"),
    ],
)
def test_a_coreset_out_of_range_is_refused(options: dict[str, Any], field: str, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected) as caught:
        CoresetOptions(**options)
    assert caught.value.field == field
    assert caught.value.with_prefix("coreset").field == ".".join(filter(None, ("coreset", field)))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        *[({"search_radius": radius}, "search_radius") for radius in (0, -0.1, 1.0001, math.nan, math.inf)],
        ({"search_radius": 0.2, "approximate_search": True}, "approximate_search"),
        *[({"false_alarm_rate": rate}, "false_alarm_rate") for rate in (0, 0.0009, 0.501, 2.0, math.nan, math.inf)],
        (SUBSPACE | {"coreset": CoresetOptions(ratio=0.1)}, "coreset"),
        (SUBSPACE | {"search_radius": 0.2}, "search_radius"),
        (SUBSPACE | {"approximate_search": True}, "approximate_search"),
        ({"region_of_interest": (TRIANGLE[:2],)}, "region_of_interest"),
        ({"region_of_interest": (((0.0, 0.0), (1.0, 0.0), (0.0, 1.5)),)}, "region_of_interest"),
        ({"region_of_interest": (((0.0, 0.0), (1.0, 0.0), (0.0, math.nan)),)}, "region_of_interest"),
        ({"region_of_interest": (((0.0, 0.0),) * (MAX_REGION_POINTS + 1),)}, "region_of_interest"),
    ],
)
@pytest.mark.parametrize("kind", [ReferenceOptions, RequestedOptions])
def test_options_out_of_range_are_refused(kind: type, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        kind(**options)
    assert caught.value.field == field


def test_options_that_are_not_requested_have_their_defaults() -> None:
    requested = RequestedOptions(search_radius=0.25, region_of_interest=(TRIANGLE,))
    assert requested.with_defaults() == ReferenceOptions(search_radius=0.25, region_of_interest=(TRIANGLE,))
    assert RequestedOptions().with_defaults() == ReferenceOptions()


def test_only_requested_options_are_compared() -> None:
    options = ReferenceOptions(ScoringProfile.PAPER, CoresetOptions(ratio=0.5), search_radius=0.25)
    assert RequestedOptions().first_difference(options) is None
    assert RequestedOptions(ScoringProfile.PAPER, search_radius=0.25).first_difference(options) is None
    assert RequestedOptions(coreset=CoresetOptions()).first_difference(options) == "coreset"
    assert RequestedOptions(approximate_search=True).first_difference(options) == "approximate_search"


@pytest.mark.parametrize("thresholds", [(-1.0, 1.0), (1.0, -1.0)])
def test_a_negative_threshold_is_refused(thresholds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="negative"):
        Calibration(CalibrationMethod.LEAVE_ONE_OUT, *thresholds, SPREAD)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0.1, None), "only one"),
        ((None, 0.1), "only one"),
        ((0.2, 0.1), "contradict"),
        ((-0.1, 0.1), "contradict"),
        ((0.1, 1.1), "contradict"),
        ((math.nan, 0.5), "contradict"),
    ],
)
def test_the_rates_of_a_calibration_fit_together(rates: tuple[float | None, float | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibration(CalibrationMethod.LEAVE_ONE_OUT, 1.0, 1.0, SPREAD, *rates)


def test_only_verdict_has_larger_model_inputs_by_default() -> None:
    sides_px = {profile: profile.default_side_px for profile in (ScoringProfile.NOTEBOOK, ScoringProfile.PAPER)}
    assert set(sides_px.values()) == {224}
    assert ScoringProfile.VERDICT.default_side_px == 320


@pytest.mark.parametrize("numbers", [(0, 0, 0, 0, 0), (1, -1, 0, 0, 0), (1, 2, 2, 0, 1), (1, 0, 0, -1, 0)])
def test_the_numbers_of_normal_scores_fit_together(
    numbers: tuple[int, float, float, float, float],
) -> None:
    with pytest.raises(ValueError, match="contradict"):
        ScoreSpread(*numbers)
