"""Prediction limits: exact rates for Gumbel samples of any size, location and scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from patchserve_server.engine.patchcore.prediction_limit import ScorePrediction

SCORES = st.lists(st.integers(0, 10**4).map(lambda value: value / 10**3), min_size=2, max_size=40)
RATES = st.floats(0.001, 0.5)


def spread_out(scores: Sequence[float]) -> bool:
    return float(np.std(scores)) > 0.05 * (float(np.mean(scores)) + 1)


@given(SCORES, RATES, st.floats(0.1, 10), st.floats(-10, 10))
def test_another_unit_and_another_zero_change_nothing(
    scores: list[float], rate: float, unit: float, zero: float
) -> None:
    assume(spread_out(scores))
    moved = [unit * score + zero for score in scores]
    assume(np.std(moved) > 0.02 * (abs(np.mean(moved)) + 1))
    limit = ScorePrediction.of(scores).limit_of(rate)
    moved_limit = ScorePrediction.of(moved).limit_of(rate)
    assert moved_limit == pytest.approx(unit * limit + zero, rel=1e-6, abs=1e-6)


@given(SCORES, RATES)
def test_a_limit_has_its_rate(scores: list[float], rate: float) -> None:
    prediction = ScorePrediction.of(scores)
    limit = prediction.limit_of(rate)
    assert prediction.rate_above(limit) == pytest.approx(rate, rel=1e-6)
    assert rate * (1 - 1e-6) <= prediction.rate_bound(limit) <= 1


@given(SCORES, st.lists(RATES, min_size=2, max_size=5))
def test_a_lower_rate_has_a_higher_limit(scores: list[float], rates: list[float]) -> None:
    assume(spread_out(scores))
    prediction = ScorePrediction.of(scores)
    limits = [prediction.limit_of(rate) for rate in sorted(rates)]
    assert limits == sorted(limits, reverse=True)
    assert [prediction.rate_bound(limit) for limit in limits] == pytest.approx(
        sorted(prediction.rate_bound(limit) for limit in limits)
    )


@given(SCORES, st.randoms(use_true_random=False))
def test_the_order_of_the_scores_does_not_matter(scores: list[float], random: object) -> None:
    shuffled = list(scores)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ScorePrediction.of(shuffled).limit_of(0.1) == ScorePrediction.of(scores).limit_of(0.1)


@pytest.mark.parametrize("count", [3, 5, 10, 60, 200])
def test_other_gumbel_scores_exceed_a_limit_at_its_rate(count: int) -> None:
    rng, covered = np.random.default_rng(count), 0
    true_rates: dict[float, list[float]] = {0.02: [], 0.15: []}
    samples = 150
    for _ in range(samples):
        prediction = ScorePrediction.of((7 + 3 * rng.gumbel(size=count)).tolist())
        for rate, rates in true_rates.items():
            limit = prediction.limit_of(rate)
            rates.append(-math.expm1(-math.exp((7 - limit) / 3)))
        covered += rates[-1] <= prediction.rate_bound(limit)
    for rate, rates in true_rates.items():
        error = np.std(rates) / samples**0.5
        assert abs(np.mean(rates) - rate) < 4 * error
    assert covered / samples == pytest.approx(0.95, abs=0.07)


@pytest.mark.parametrize("count", [5, 60])
def test_scores_with_a_lighter_tail_exceed_it_more_rarely(count: int) -> None:
    rng, rates = np.random.default_rng(count), []
    for _ in range(100):
        limit = ScorePrediction.of(rng.normal(size=count).tolist()).limit_of(0.15)
        rates.append(0.5 * math.erfc(limit / 2**0.5))
    assert 0.08 < np.mean(rates) < 0.15


def test_the_rate_is_the_integral_over_locations_and_scales() -> None:
    """Written out on a grid of locations and scales, as docs/accuracy.md defines it."""
    scores, limit = np.array([1.0, 1.3, 0.8, 2.1, 1.2]), 2.5
    scales = np.exp(np.linspace(-4, 5, 401))[:, None]
    locations = np.linspace(-50, 20, 2801)
    log_weights = np.zeros((len(scales), len(locations)))  # the prior, for steps of the location and of the log scale
    for score in scores:
        z = (score - locations) / scales
        log_weights += -np.log(scales) - z - np.exp(np.minimum(-z, 700))
    weights = np.exp(log_weights - log_weights.max())
    exceedance = -np.expm1(-np.exp(np.minimum((locations - limit) / scales, 700)))
    rate = float((weights * exceedance).sum() / weights.sum())
    assert ScorePrediction.of(scores.tolist()).rate_above(limit) == pytest.approx(rate, rel=1e-3)


def test_more_images_make_it_surer() -> None:
    bounds = []
    for count in (3, 10, 30, 100, 1000):
        quantiles = -np.log(-np.log((np.arange(count) + 0.5) / count))  # an even sample of the Gumbel distribution
        prediction = ScorePrediction.of(quantiles.tolist())
        bounds.append(prediction.rate_bound(prediction.limit_of(0.05)))
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > 0.2
    assert bounds[-1] < 0.07


@pytest.mark.parametrize("scores", [[0.0, 0.0], [3.0] * 20, [0.0] * 30 + [5.0], [5e-324, 0.0, 0.0], [1e30, 2e30, 3e30]])
def test_odd_scores_have_a_limit(scores: list[float]) -> None:
    prediction = ScorePrediction.of(scores)
    limit = prediction.limit_of(0.15)
    assert np.mean(scores) * (1 - 1e-9) <= limit < np.inf
    assert prediction.rate_above(limit) <= prediction.rate_bound(limit) <= 1


def test_scores_that_are_all_0_say_that_a_real_threshold_is_never_exceeded() -> None:
    prediction = ScorePrediction.of([0.0, 0.0, 0.0])
    assert prediction.rate_above(0.01) < 1e-9
    assert prediction.rate_bound(0.01) < 1e-9
