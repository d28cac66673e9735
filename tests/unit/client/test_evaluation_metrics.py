"""The metrics of an evaluation, against known values and a naive implementation."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from patchserve_client.evaluation.best_threshold import BestThreshold, best_threshold
from patchserve_client.evaluation.image_metrics import ImageMetrics, auroc, image_metrics
from patchserve_client.evaluation.pixel_metrics import PixelHistograms, stretched

LABELS = np.array([False, False, False, False, True, True, True, True])
RISING = np.arange(1, 9) / 4.5  # the first defective image is the first above 1


def metrics_of(ratios: NDArray[np.float64], labels: NDArray[np.bool_] = LABELS) -> ImageMetrics:
    return image_metrics(labels, ratios, 100 * ratios[::-1])


def test_perfect_ratios_have_perfect_metrics() -> None:
    assert metrics_of(RISING) == ImageMetrics(
        image_auroc=1.0,
        average_precision=1.0,
        false_alarm_rate=0.0,
        found_rate=1.0,
        balanced_accuracy=1.0,
        f1=1.0,
        best=BestThreshold(1.0, 1.0, 0.0, 1.0),
        damage_percentage_auroc=0.0,
    )


def test_for_inverted_ratios_no_threshold_is_better_than_guessing() -> None:
    metrics = metrics_of(RISING[::-1])
    assert (metrics.image_auroc, metrics.f1, metrics.balanced_accuracy, metrics.false_alarm_rate) == (0, 0, 0, 1)
    assert metrics.best is None
    assert metrics.damage_percentage_auroc == 1


def test_equal_ratios_rank_like_chance() -> None:
    metrics = metrics_of(np.full(8, 0.3))
    assert (metrics.image_auroc, metrics.average_precision, metrics.best) == (0.5, 0.5, None)
    assert (metrics.f1, metrics.balanced_accuracy, metrics.false_alarm_rate) == (0, 0.5, 0)


def test_a_bad_threshold_does_not_change_the_ranking_metrics() -> None:
    metrics = metrics_of(RISING * 1.2)  # calls one intact image of four anomalous
    assert metrics.image_auroc == 1
    assert (metrics.false_alarm_rate, metrics.found_rate) == (0.25, 1.0)
    assert metrics.f1 == pytest.approx(8 / 9)
    assert metrics.balanced_accuracy == pytest.approx(0.875)
    assert metrics.best is not None
    assert metrics.best.balanced_accuracy == 1
    assert 0.7 < metrics.best.sensitivity < 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
def test_image_auroc_is_the_share_of_pairs_in_order_and_ties_count_half(images: list[tuple[bool, int]]) -> None:
    labels = np.array([defective for defective, _ in images])
    ratios = np.array([ratio / 8 for _, ratio in images])
    wins = [np.sign(bad - good) / 2 + 0.5 for bad in ratios[labels] for good in ratios[~labels]]
    metrics = metrics_of(ratios, labels=labels).image_auroc
    assert metrics == (pytest.approx(np.mean(wins)) if wins else None)
    assert auroc(ratios[~labels], ratios[labels]) == metrics


@pytest.mark.parametrize(("defective", "rates"), [(False, (0.5, None)), (True, (None, 0.5))])
def test_metrics_that_need_both_kinds_of_images_are_not_defined_without_them(
    defective: bool, rates: tuple[float | None, float | None]
) -> None:
    metrics = metrics_of(RISING, labels=np.full(8, defective))
    assert metrics == ImageMetrics(false_alarm_rate=rates[0], found_rate=rates[1])


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=2, max_size=30))
def test_the_sensitivity_of_the_best_threshold_gives_the_highest_balanced_accuracy(
    images: list[tuple[bool, int]],
) -> None:
    labels = np.array([defective for defective, _ in images])
    ratios = np.array([hundredths / 100 for _, hundredths in images])
    assume(labels.any() and not labels.all())

    def balanced(threshold: float) -> float:
        flagged = ratios > threshold
        return float(flagged[labels].mean() + 1 - flagged[~labels].mean()) / 2

    reachable = [0.1, 1.0, *(ratio for ratio in ratios if 0.1 <= ratio < 10)]
    highest = max(balanced(threshold) for threshold in reachable)
    best = best_threshold(labels, ratios)
    if best is None:
        assert highest <= 0.5
        return
    assert 0.1 <= best.sensitivity <= 10
    scored = ratios.astype(np.float32) > np.float32(1 / best.sensitivity)  # as the server compares
    assert balanced(best.ratio) == best.balanced_accuracy == pytest.approx(highest)
    assert (scored == (ratios > best.ratio)).all()
    assert (best.false_alarm_rate, best.found_rate) == (scored[~labels].mean(), scored[labels].mean())
    assert best.sensitivity == 1 or balanced(1.0) < best.balanced_accuracy
    assert len(str(best.sensitivity)) <= 6, "easy to type"


def histograms(*images: tuple[NDArray[np.float32], NDArray[np.bool_]]) -> PixelHistograms:
    counted = PixelHistograms()
    for score_map, mask in images:
        counted.add(score_map, mask)
    return counted


def naive_regions(mask: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """Connected through sides and corners."""
    unvisited = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while unvisited:
        region, edge = set(), [unvisited.pop()]
        while edge:
            row, column = edge.pop()
            region.add((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & unvisited
            unvisited -= near
            edge.extend(near)
        regions.append(region)
    return regions


def naive_aupro(images: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]], limit: float = 0.3) -> float:
    """By definition: for every threshold, the mean overlap of the regions against the false positive rate."""
    images = list(images)
    regions = [(scores, region) for scores, mask in images for region in naive_regions(mask)]
    intact = np.concatenate([scores[~mask] for scores, mask in images])
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(score) for scores, _ in images for score in scores.ravel()}, reverse=True):
        overlaps = [sum(scores[pixel] >= threshold for pixel in region) / len(region) for scores, region in regions]
        curve.append((float((intact >= threshold).mean()), float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@st.composite
def marked_maps(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    eighths = draw(arrays(np.uint8, shape, elements=st.integers(0, 20)))
    return eighths.astype(np.float32) / np.float32(8), draw(arrays(np.bool_, shape))


@settings(deadline=None, max_examples=60)
@given(st.lists(marked_maps(), min_size=1, max_size=3))
def test_pixel_metrics_equal_a_naive_implementation(
    images: list[tuple[NDArray[np.float32], NDArray[np.bool_]]],
) -> None:
    counted = histograms(*images)
    labels = np.concatenate([mask.ravel() for _, mask in images])
    scores = np.concatenate([score_map.ravel() for score_map, _ in images])
    assert counted.region_count == sum(len(naive_regions(mask)) for _, mask in images)
    if labels.all() or not labels.any():
        assert counted.auroc() is None
        assert counted.aupro() is None
        assert counted.average_precision() is None
        return
    assert counted.auroc() == pytest.approx(roc_auc_score(labels, scores))
    assert counted.aupro() == pytest.approx(naive_aupro(images))
    assert counted.average_precision() == pytest.approx(average_precision_score(labels, scores))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e4])
def test_fine_scores_lose_almost_no_precision(scale: float) -> None:
    rng = np.random.default_rng(1)
    mask = cv2.GaussianBlur(rng.normal(size=(64, 64)).astype(np.float32), (0, 0), 6) > 0.1
    scores = (scale * rng.gamma(3 + mask)).astype(np.float32)
    counted = histograms((scores, mask))
    assert counted.auroc() == pytest.approx(roc_auc_score(mask.ravel(), scores.ravel()), abs=1e-4)
    assert counted.aupro() == pytest.approx(naive_aupro([(scores, mask)]), abs=1e-4)


def test_pixel_metrics_of_known_maps() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[:10, :10] = mask[15, 15] = True  # a large region and a single pixel
    marked = mask.astype(np.float32)
    perfect, inverted, flat = histograms((marked, mask)), histograms((1 - marked, mask)), histograms((0 * marked, mask))
    assert (perfect.auroc(), perfect.aupro()) == (1, 1)
    assert (inverted.auroc(), inverted.aupro()) == (0, 0)
    assert flat.auroc() == 0.5
    assert flat.aupro() == pytest.approx(0.15)  # the diagonal up to 0.3


def test_every_region_counts_the_same_whatever_its_size() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[:10, :10] = mask[30, 30] = True
    only_large_found = np.zeros((40, 40), np.float32)
    only_large_found[:10, :10] = 1
    overlap_at_the_limit = 0.5 + 0.5 * 0.3  # on the straight line from (0, 0.5) to (1, 1)
    metrics = histograms((only_large_found, mask)).aupro()
    assert metrics == pytest.approx((0.5 + overlap_at_the_limit) / 2)


def test_maps_are_resized_to_the_mask_like_opencv() -> None:
    score_map = np.random.default_rng(2).random((28, 28), np.float32)
    np.testing.assert_allclose(
        stretched(score_map, (100, 71)), cv2.resize(score_map, (71, 100), interpolation=cv2.INTER_LINEAR), atol=2e-3
    )
    mask = np.repeat([[False, True]], 30, axis=0).repeat(40, axis=1)  # (30, 80)
    assert histograms((np.array([[0, 1]], np.float32), mask)).auroc() == 1


def test_pixels_of_intact_images_count_as_intact() -> None:
    mask = np.array([[True, False]])
    damaged = (np.array([[2, 1]], np.float32), mask)
    high_but_intact = (np.array([[3, 3]], np.float32), np.zeros_like(mask))
    assert histograms(damaged).auroc() == 1
    assert histograms(damaged, high_but_intact).auroc() == pytest.approx(1 / 3)


@pytest.mark.parametrize("score", [-1, np.nan, np.inf])
def test_scores_that_are_negative_or_not_finite_are_rejected(score: float) -> None:
    with pytest.raises(ValueError, match="finite numbers of 0 or more"):
        histograms((np.array([[1, score]], np.float32), np.array([[True, False]])))
