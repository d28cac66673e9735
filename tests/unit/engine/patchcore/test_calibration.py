"""Thresholds: where they come from, that they stay sound for odd references."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
from fakes.engine import MEMORY_BANK_PROFILES, cards, ignore_progress, inspect
from numpy.typing import NDArray

from patchserve_server.domain.false_alarm_rate import DEFAULT_FALSE_ALARM_RATE
from patchserve_server.domain.images import AnomalyMap, ModelInputs
from patchserve_server.domain.input_options import TILED_SIDE_RANGE_PX
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference import Calibration, CalibrationMethod, MemoryBank
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ScoringProfile
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.augmented_views import augmented_views
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.prediction_limit import ScorePrediction

FULL = CoresetOptions()


def plain(*colors: tuple[int, int, int]) -> ModelInputs:
    return np.stack([np.full((224, 224, 3), color, np.uint8) for color in colors])


def fit(
    detector: PatchCoreDetector, inputs: ModelInputs, profile: ScoringProfile, coreset: CoresetOptions = FULL
) -> Scorer:
    return detector.fit(inputs, ReferenceOptions(profile, coreset), ignore_progress)


def raw_scores(scorer: Scorer, inputs: ModelInputs) -> list[float]:
    return [raw.image_score for raw in scorer.score(inputs)[0]]


def test_leaving_one_out_equals_banks_of_the_others(detector: PatchCoreDetector) -> None:
    inputs = cards(1, 2, 3, 4)
    calibration = fit(detector, inputs, ScoringProfile.PAPER).model.calibration
    others = [fit(detector, np.delete(inputs, at, axis=0), ScoringProfile.PAPER) for at in range(4)]
    scores = [raw_scores(other, inputs[at : at + 1])[0] for at, other in enumerate(others)]
    assert calibration.method is CalibrationMethod.LEAVE_ONE_OUT
    assert_spread(calibration, scores)


def test_spacing_and_left_out_scores_are_as_defined(detector: PatchCoreDetector) -> None:
    """Against the definition in docs/adr/0006, written out one image and one row at a time."""
    model = fit(detector, cards(1, 2, 3, 4), ScoringProfile.NOTEBOOK).model
    rows, image_index = model.memory_bank.patches.astype(np.float64), model.memory_bank.image_index
    means, nearest = np.empty(len(rows)), np.empty((len(rows), 9), int)
    for at, row in enumerate(rows):
        distances = np.where(image_index == image_index[at], np.inf, np.linalg.norm(rows - row, axis=1))
        nearest[at] = distances.argsort(kind="stable")[:9]
        means[at] = distances[nearest[at]].mean()
    spacing = np.maximum(means, 0.1 * means.mean()) / means.mean()
    np.testing.assert_allclose(model.memory_bank.spacing, spacing, rtol=1e-4)
    spaced = means / spacing[nearest].mean(axis=1) ** 0.4
    scores = [np.sort(spaced[image_index == at])[-6:].mean() for at in range(4)]  # 3 % of 196
    assert_spread(model.calibration, scores)


def assert_spread(calibration: Calibration, scores: Sequence[float]) -> None:
    spread = calibration.normal_scores
    assert spread.count == len(scores)
    assert [spread.min, spread.mean, spread.stddev, spread.max] == pytest.approx(
        [min(scores), np.mean(scores), np.std(scores), max(scores)], rel=1e-4
    )
    assert spread.scores == pytest.approx(sorted(scores), rel=1e-4)
    prediction = ScorePrediction.of(scores)
    threshold, rates = calibration.image_threshold, (calibration.false_alarm_rate, calibration.false_alarm_rate_upper)
    assert threshold == pytest.approx(prediction.limit_of(DEFAULT_FALSE_ALARM_RATE), rel=1e-4)
    assert rates == pytest.approx((DEFAULT_FALSE_ALARM_RATE, prediction.rate_bound(threshold)), rel=1e-2)


def relative_spread(bank: MemoryBank, spacing: NDArray[np.float32]) -> float:
    """Of the left-out image scores of VERDICT with this spacing (K,), one image and one area at a time."""
    rows, image_index = bank.patches.astype(np.float64), bank.image_index
    scores = []
    for image in range(len(bank.inputs)):
        others = (image_index != image).nonzero()[0]
        distances = np.linalg.norm(rows[image_index == image][:, None] - rows[others], axis=2)
        nearest = distances.argsort(axis=1, kind="stable")[:, :9]
        found = np.take_along_axis(distances, nearest, axis=1).mean(axis=1)
        highest = np.sort(found / spacing[others[nearest]].mean(axis=1) ** 0.4)[::-1]
        areas = range(1, round(0.2 * len(highest)) + 1)
        scores.append(np.average([highest[:area].mean() for area in areas], weights=[1 / area for area in areas]))
    return float(np.std(scores) / np.mean(scores))


@pytest.mark.parametrize("coreset", [FULL, CoresetOptions(ratio=0.1)])
def test_two_images_have_no_spacing(detector: PatchCoreDetector, coreset: CoresetOptions) -> None:
    bank = fit(detector, cards(1, 2, 1), ScoringProfile.NOTEBOOK, coreset).model.memory_bank
    np.testing.assert_array_equal(bank.spacing, np.ones(len(bank.patches)))


@pytest.mark.parametrize("profile", ScoringProfile)
@pytest.mark.parametrize("count", [1, 2])
def test_few_images_are_altered(detector: PatchCoreDetector, profile: ScoringProfile, count: int) -> None:
    inputs = cards(*range(count))
    scorer = fit(detector, inputs, profile)
    views = np.stack(list(itertools.chain.from_iterable(augmented_views(image) for image in inputs)))
    scores = raw_scores(scorer, views)
    calibration = scorer.model.calibration
    assert calibration.method is CalibrationMethod.AUGMENTED_VIEWS
    assert calibration.normal_scores.count == len(views)
    assert calibration.image_threshold == pytest.approx(max(scores), rel=1e-4)


def test_views_differ_and_are_always_the_same() -> None:
    [image] = cards(1)
    views = list(augmented_views(image))
    np.testing.assert_array_equal(views[0], image)
    for one, other in itertools.combinations(views, 2):
        assert not np.array_equal(one, other)
    for view, again in zip(views, augmented_views(image), strict=True):
        assert (view.shape, view.dtype) == (image.shape, image.dtype)
        np.testing.assert_array_equal(view, again)
        assert np.abs(view.astype(int) - image).mean() < 25


@pytest.mark.parametrize("side_px", TILED_SIDE_RANGE_PX)
def test_images_of_any_size_have_views(side_px: int) -> None:
    for shape in ((32, side_px, 3), (side_px, 32, 3)):
        assert {view.shape for view in augmented_views(np.zeros(shape, np.uint8))} == {shape}


@pytest.mark.parametrize("profile", ScoringProfile)
def test_equal_images_count_as_one(detector: PatchCoreDetector, profile: ScoringProfile) -> None:
    once, thrice = (fit(detector, cards(*seeds), profile).model.calibration for seeds in ((1,), (1, 1, 1)))
    assert thrice.method is CalibrationMethod.AUGMENTED_VIEWS
    assert thrice.normal_scores.count == once.normal_scores.count
    repeated, distinct = (
        fit(detector, cards(*seeds), profile).model.calibration for seeds in ((1, 2, 3, 1), (1, 2, 3))
    )
    assert repeated.method is CalibrationMethod.LEAVE_ONE_OUT
    assert repeated.normal_scores.count == distinct.normal_scores.count == 3


@pytest.mark.parametrize("profile", MEMORY_BANK_PROFILES)
@pytest.mark.parametrize(
    ("inputs", "coreset"),
    [
        (plain((0, 0, 0)), FULL),
        (plain((9, 99, 199), (9, 99, 199), (9, 99, 199), (9, 99, 199)), FULL),
        (plain((10, 10, 10), (10, 10, 11), (10, 11, 10)), FULL),
        (cards(1, 1, 1, 1), FULL),
        (cards(1, 2, 3), CoresetOptions(max_patches=16)),
        (np.concatenate([cards(1, 2, 3, 4, 5), plain((250, 0, 0))]), FULL),
        (np.concatenate([cards(1, 2, 3, 4, 5), plain((250, 0, 0))]), CoresetOptions(max_patches=16)),
        (np.concatenate([plain((0, 0, 0), (0, 0, 2), (0, 2, 0)), cards(1)]), CoresetOptions(ratio=0.01)),
    ],
    ids=["black", "same plain", "near plain", "same", "16 rows", "odd one", "odd one, 16 rows", "rare one"],
)
def test_odd_references_have_sound_thresholds(
    detector: PatchCoreDetector, profile: ScoringProfile, inputs: ModelInputs, coreset: CoresetOptions
) -> None:
    scorer = fit(detector, inputs, profile, coreset)
    calibration, spread = scorer.model.calibration, scorer.model.calibration.normal_scores
    assert 0 < calibration.image_threshold < np.inf
    assert 0 < calibration.patch_threshold < np.inf
    assert 0 <= spread.min <= spread.mean <= spread.max < np.inf
    assert np.isfinite(spread.stddev)
    assert not any(found.anomaly.is_anomalous for found in inspect(scorer, inputs))


def test_a_requested_rate_moves_both_thresholds(detector: PatchCoreDetector) -> None:
    inputs = cards(1, 2, 3, 4, 5)
    rare, default = (
        detector.fit(inputs, ReferenceOptions(false_alarm_rate=rate), ignore_progress).model.calibration
        for rate in (0.02, None)
    )
    assert rare.image_threshold > default.image_threshold
    assert rare.patch_threshold > default.patch_threshold
    assert rare.normal_scores == default.normal_scores
    assert rare.false_alarm_rate == pytest.approx(0.02)
    assert default.false_alarm_rate == pytest.approx(DEFAULT_FALSE_ALARM_RATE)


def test_where_the_images_themselves_raise_the_threshold_its_rate_is_lower(detector: PatchCoreDetector) -> None:
    calibration = detector.fit(
        cards(1, 2, 3, 4, 5), ReferenceOptions(false_alarm_rate=0.5), ignore_progress
    ).model.calibration
    assert calibration.false_alarm_rate is not None
    assert calibration.false_alarm_rate_upper is not None
    assert 0 < calibration.false_alarm_rate < calibration.false_alarm_rate_upper < 1
    limit = ScorePrediction.of(calibration.normal_scores.scores).limit_of(0.5)
    assert (calibration.false_alarm_rate < 0.499) == (calibration.image_threshold > limit * 1.001)


@pytest.mark.parametrize("count", [1, 2])
def test_views_of_few_images_tell_no_rate(detector: PatchCoreDetector, count: int) -> None:
    with_rate, without = (
        detector.fit(cards(*range(count)), ReferenceOptions(false_alarm_rate=rate), ignore_progress).model.calibration
        for rate in (0.01, None)
    )
    assert with_rate == without
    assert with_rate.false_alarm_rate is with_rate.false_alarm_rate_upper is None


def test_verdict_uses_the_spacing_only_where_scores_become_more_alike(detector: PatchCoreDetector) -> None:
    """Against the definition, from the two raw scores of every image."""
    for inputs in (
        cards(1, 2, 3, 4),
        cards(*range(8)),
        np.concatenate([cards(1, 2, 3), plain((9, 99, 199), (12, 99, 199))]),
    ):
        spaced = fit(detector, inputs, ScoringProfile.NOTEBOOK).model.memory_bank
        model = fit(detector, inputs, ScoringProfile.VERDICT).model
        is_plain, is_spaced = (
            bool((model.memory_bank.spacing == 1).all()),
            np.array_equal(model.memory_bank.spacing, spaced.spacing),
        )
        assert is_plain != is_spaced
        spreads = [relative_spread(spaced, spacing) for spacing in (np.ones_like(spaced.spacing), spaced.spacing)]
        assert is_spaced == (spreads[1] < spreads[0])


@pytest.mark.parametrize("profile", [ScoringProfile.NOTEBOOK, ScoringProfile.VERDICT, ScoringProfile.SUBSPACE])
@pytest.mark.parametrize("count", [1, 6])
def test_a_fit_keeps_no_maps(
    detector: PatchCoreDetector, profile: ScoringProfile, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of many large images would need more memory than the bank."""
    maps = list[weakref.ref[AnomalyMap]]()
    most_at_once, draw = 0, Pipeline._anomaly_map

    def drawn(pipeline: Pipeline, patch_scores: np.ndarray) -> AnomalyMap:
        nonlocal most_at_once
        anomaly_map = draw(pipeline, patch_scores)
        maps.append(weakref.ref(anomaly_map))
        most_at_once = max(most_at_once, sum(one() is not None for one in maps))
        return anomaly_map

    monkeypatch.setattr(Pipeline, "_anomaly_map", drawn)
    fit(detector, cards(*range(count)), profile)
    assert len(maps) == (10 if count == 1 else count)  # of each augmented view, else of each image
    assert most_at_once <= 3


@pytest.mark.parametrize("profile", [ScoringProfile.NOTEBOOK, ScoringProfile.SUBSPACE])
def test_a_load_ends_between_two_views_of_an_image(detector: PatchCoreDetector, profile: ScoringProfile) -> None:
    """Those of one large image take minutes."""
    scored = list[int]()

    def leave(stage: LoadStage, done: int, _total: int) -> None:
        if stage is LoadStage.CALIBRATE:
            scored.append(done)
        if len(scored) == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        detector.fit(cards(1), ReferenceOptions(profile), leave)
    assert scored == [0] * 4
