"""The bootstrap and the confidence intervals, against scikit-learn on repeated images and against known values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from patchserve_client.evaluation.intervals import auroc_interval, intervals, share_interval
from patchserve_client.evaluation.resampling import aurocs, average_precisions, balanced_accuracies, draw

Images = tuple[NDArray[np.bool_], NDArray[np.float64]]
"""Labels and ratios."""


@st.composite
def images(draw_from: st.DrawFn) -> Images:
    """Some of both kinds, many with the same ratio, some with an infinite one."""
    kinds = draw_from(st.permutations([True, False, *draw_from(st.lists(st.booleans(), max_size=20))]))
    levels = st.one_of(st.integers(0, 6).map(lambda level: level / 4), st.just(np.inf))
    ratios = draw_from(st.lists(levels, min_size=len(kinds), max_size=len(kinds)))
    return np.array(kinds, np.bool_), np.array(ratios)


@given(images(), st.integers(0, 2**31))
def test_metrics_of_a_resample_are_those_of_its_images(drawn: Images, seed: int) -> None:
    labels, ratios = drawn
    draws = draw(labels, count=5, seed=seed)
    found = [metric(labels, ratios, draws) for metric in (aurocs, average_precisions, balanced_accuracies)]
    finite = np.minimum(ratios, 1e9)  # scikit-learn takes no infinity
    for index, times in enumerate(draws):
        truth, scores = np.repeat(labels, times), np.repeat(finite, times)
        assert [metric[index] for metric in found] == pytest.approx(
            [
                roc_auc_score(truth, scores),
                average_precision_score(truth, scores),
                balanced_accuracy_score(truth, scores > 1),
            ]
        )


@given(images(), st.integers(0, 2**31))
def test_a_resample_has_as_many_intact_and_defective_images_as_there_are(drawn: Images, seed: int) -> None:
    labels, _ = drawn
    draws = draw(labels, count=7, seed=seed)
    assert (draws[:, labels].sum(axis=1) == labels.sum()).all()
    assert (draws[:, ~labels].sum(axis=1) == (~labels).sum()).all()
    assert (draws == draw(labels, count=7, seed=seed)).all()


def test_every_image_is_drawn_equally_often() -> None:
    labels = np.arange(40) < 10
    mean = draw(labels, count=20_000).mean(axis=0)
    assert mean == pytest.approx(np.ones(40), abs=0.05)


def test_large_sets_are_computed_in_parts_with_the_same_result() -> None:
    rng = np.random.default_rng(1)
    labels, ratios = np.arange(3000) < 1000, rng.normal(size=3000)
    draws = draw(labels, count=2000)  # more than one array of cells
    assert aurocs(labels, ratios, draws)[[0, 700, 1999]] == pytest.approx(
        [aurocs(labels, ratios, draws[[index]])[0] for index in (0, 700, 1999)]
    )


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [  # Clopper and Pearson: tables, and 1 - 0.025 ** (1 / n) for none
        (0, 30, 0.0, 0.1157),
        (30, 30, 0.8843, 1.0),
        (2, 3, 0.0943, 0.9916),
        (81, 263, 0.2527, 0.3676),
    ],
)
def test_shares_have_the_exact_binomial_interval(count: int, total: int, low: float, high: float) -> None:
    assert share_interval(count, total) == pytest.approx((low, high), abs=1e-4)


def test_perfect_images_still_have_an_interval() -> None:
    labels = np.arange(40) < 16
    found = intervals(labels, np.where(labels, 2.0, 0.5))
    assert found["image_auroc"] == pytest.approx((0.025 ** (1 / 16), 1))
    assert found["false_alarm_rate"] == pytest.approx((0, 1 - 0.025 ** (1 / 24)))
    assert found["found_rate"] == pytest.approx((0.025 ** (1 / 16), 1))
    low, high = found["balanced_accuracy"] or (0, 0)
    assert (0.8 < low < 0.95, high) == (True, 1)
    assert found["average_precision"] is None  # every resample is perfect, and nothing is known


def test_the_interval_of_an_auroc_is_near_that_of_theory() -> None:
    """For many images, an AUROC is normal with the variance of Hanley and McNeil 1982."""
    rng = np.random.default_rng(2)
    labels = np.arange(500) < 200
    ratios = np.where(labels, rng.normal(1.2, 1, 500), rng.normal(0, 1, 500))
    area = float(roc_auc_score(labels, ratios))
    low, high = auroc_interval(labels, aurocs(labels, ratios, draw(labels)))
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 199 * (one - area**2) + 299 * (two - area**2)) / (200 * 300)
    assert low < area < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.15)


@pytest.mark.parametrize("defective", [True, False])
def test_without_both_kinds_only_their_own_share_is_known(defective: bool) -> None:
    found = intervals(np.full(4, defective), np.array([0.5, 0.7, 1.5, 2.0]))
    known = "found_rate" if defective else "false_alarm_rate"
    assert {name for name, interval in found.items() if interval is not None} == {known}


@given(images())
def test_the_value_is_inside_its_interval(drawn: Images) -> None:
    labels, ratios = drawn
    found = intervals(labels, ratios)
    flagged = ratios > 1
    values = {
        "false_alarm_rate": flagged[~labels].mean(),
        "found_rate": flagged[labels].mean(),
        "balanced_accuracy": (flagged[labels].mean() + 1 - flagged[~labels].mean()) / 2,
    }
    for name, value in values.items():
        low, high = found[name] or (0, 0)
        assert -1e-9 <= low <= value + 1e-9
        assert value <= high + 1e-9 <= 1 + 2e-9
