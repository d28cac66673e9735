"""The SUBSPACE profile on a real network: what it is fitted to, and how it is calibrated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fakes.engine import cards, ignore_progress, inspect
from fakes.engine import fit as fit_with

from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference import CalibrationMethod
from patchserve_server.domain.reference_options import (
    ReferenceOptions,
    ReferenceViews,
    RegionOfInterest,
    ScoringProfile,
)
from patchserve_server.domain.subspace import Subspace
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore import pipeline as pipeline_module
from patchserve_server.engine.patchcore import subspace_fit
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace, PatchSums
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.reference_views import View
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer
from patchserve_server.engine.patchcore.tiling import Tile

OPTIONS = ReferenceOptions(profile=ScoringProfile.SUBSPACE)
LEFT_HALF: RegionOfInterest = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)


def fit(detector: PatchCoreDetector, inputs: ModelInputs, region: RegionOfInterest = ()) -> Scorer:
    return fit_with(detector, inputs, dataclasses.replace(OPTIONS, region_of_interest=region))


def image_score(scorer: Scorer, image: ModelInputs) -> float:
    return scorer.score(image[None])[0][0].image_score


def subspace_of(scorer: Scorer) -> Subspace:
    assert isinstance(scorer.model.bank, Subspace)
    return scorer.model.bank


def test_scores_are_the_highest_distances_to_the_subspace(detector: PatchCoreDetector) -> None:
    scorer, image = fit(detector, cards(1, 2, 3)), cards(4)
    assert isinstance(scorer, PatchCoreScorer)
    bank, patches = subspace_of(scorer), scorer.pipeline.embed(image)[0].double().numpy()
    centered = patches - bank.mean
    distances = np.linalg.norm(centered - centered @ bank.basis.T @ bank.basis, axis=1)
    (raw,), _ = scorer.score(image)
    assert raw.image_score == pytest.approx(np.sort(distances)[-6:].mean(), rel=1e-4)  # 3 % of 196
    assert raw.anomaly_map.max() == pytest.approx(distances.max(), rel=0.05)


def test_leaving_one_out_equals_subspaces_of_the_others(detector: PatchCoreDetector) -> None:
    inputs = cards(1, 2, 3, 4)
    calibration = fit(detector, inputs).model.calibration
    expected = [image_score(fit(detector, np.delete(inputs, at, axis=0)), inputs[at]) for at in range(4)]
    assert calibration.method is CalibrationMethod.LEAVE_ONE_OUT
    assert calibration.normal_scores.scores == pytest.approx(sorted(expected), rel=1e-3)


def test_of_many_images_a_fold_is_left_out(detector: PatchCoreDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subspace_fit, "MAX_FOLDS", 2)
    inputs = cards(1, 2, 3, 4, 5)
    spread = fit(detector, inputs).model.calibration.normal_scores
    even, odd = fit(detector, inputs[0::2]), fit(detector, inputs[1::2])
    expected = [image_score(odd if at % 2 == 0 else even, image) for at, image in enumerate(inputs)]
    assert spread.scores == pytest.approx(sorted(expected), rel=1e-3)


@pytest.mark.parametrize(
    ("seeds", "method"),
    [
        ((1,), CalibrationMethod.AUGMENTED_VIEWS),
        ((1, 2), CalibrationMethod.AUGMENTED_VIEWS),
        ((1, 2, 3), CalibrationMethod.LEAVE_ONE_OUT),
        ((1, 2, 3, 4, 5, 6), CalibrationMethod.LEAVE_ONE_OUT),
    ],
)
def test_no_reference_image_is_anomalous_and_damage_is(
    detector: PatchCoreDetector, seeds: tuple[int, ...], method: CalibrationMethod
) -> None:
    scorer = fit(detector, cards(*seeds))
    assert scorer.model.calibration.method is method
    assert not any(judged.anomaly.is_anomalous for judged in inspect(scorer, cards(*seeds)))
    assert inspect(scorer, cards(seeds[0], scratched=True))[0].anomaly.is_anomalous


def test_equal_images_count_as_one(detector: PatchCoreDetector) -> None:
    once, twice = fit(detector, cards(1, 2, 3)), fit(detector, cards(1, 2, 1, 3, 3))
    np.testing.assert_array_equal(subspace_of(once).basis, subspace_of(twice).basis)
    assert once.model.calibration == twice.model.calibration
    assert len(subspace_of(twice).inputs) == 5


def test_the_order_of_images_changes_rounding_only(detector: PatchCoreDetector) -> None:
    one, other = fit(detector, cards(1, 2, 3)), fit(detector, cards(3, 1, 2))
    assert image_score(one, cards(4)[0]) == pytest.approx(image_score(other, cards(4)[0]), rel=1e-3)
    assert one.model.calibration.image_threshold == pytest.approx(other.model.calibration.image_threshold, rel=1e-3)


def test_only_the_region_of_interest_and_its_border_is_fitted(detector: PatchCoreDetector) -> None:
    inputs = cards(1, 2, 3)
    scorer = fit(detector, inputs, LEFT_HALF)
    assert isinstance(scorer, PatchCoreScorer)
    vectors = [scorer.pipeline.embed(scorer.pipeline.mask(image[None]))[0].view(14, 14, -1) for image in inputs]
    sums = PatchSums.of(torch.stack(vectors)[:, :, :8].flatten(0, 2))  # 7 columns count, and the next one
    expected = PatchSubspace.fit(sums)
    np.testing.assert_allclose(subspace_of(scorer).mean, expected.mean, rtol=1e-5, atol=1e-6)
    assert len(subspace_of(scorer).basis) == len(expected.basis)


def plain(*levels: int) -> ModelInputs:
    return np.stack([np.full((224, 224, 3), level, np.uint8) for level in levels])


@pytest.mark.parametrize(
    "inputs",
    [plain(0), plain(128), plain(9, 9, 9, 9), plain(10, 11, 12), np.concatenate([cards(1, 2, 3, 4, 5), plain(250)])],
    ids=["black", "gray", "same", "near", "odd one"],
)
def test_odd_references_have_sound_thresholds(detector: PatchCoreDetector, inputs: ModelInputs) -> None:
    scorer = fit(detector, inputs)
    calibration, spread = scorer.model.calibration, scorer.model.calibration.normal_scores
    assert 0 < calibration.image_threshold < np.inf
    assert 0 < calibration.patch_threshold < np.inf
    assert 0 <= spread.min <= spread.mean <= spread.max < np.inf
    assert not any(judged.anomaly.is_anomalous for judged in inspect(scorer, inputs))


def test_images_are_embedded_one_by_one(detector: PatchCoreDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    embed = Pipeline.embed

    def counting(pipeline: Pipeline, masked_inputs: ModelInputs, tiles: Sequence[Tile] | None = None) -> torch.Tensor:
        batches.append(len(masked_inputs))
        return embed(pipeline, masked_inputs, tiles)

    monkeypatch.setattr(Pipeline, "embed", counting)
    steps: list[tuple[LoadStage, int, int]] = []
    detector.fit(cards(1, 2, 3), OPTIONS, lambda *step: steps.append(step))
    assert batches == [1] * 6, "each for the fit and for the calibration"
    assert [step for step in steps if step[0] is LoadStage.EMBED] == [(LoadStage.EMBED, at, 3) for at in (1, 2, 3)]
    assert steps[-1] == (LoadStage.CALIBRATE, 3, 3)


def test_the_memory_of_a_fit_is_that_of_the_images_and_of_fixed_sums(detector: PatchCoreDetector) -> None:
    shape, one_image = InputShape.square(320), 2 * 3 * 320 * 320
    few, many = (detector.fit_nbytes(shape, OPTIONS, count) for count in (1, 101))
    assert many - few == 100 * one_image
    assert few - one_image - detector.shared_nbytes(shape, OPTIONS) < 20 * 2**20, "with 328 features"


def test_a_left_out_image_takes_its_views_along(detector: PatchCoreDetector) -> None:
    inputs, options = cards(1, 2, 3), dataclasses.replace(OPTIONS, views=ReferenceViews.ALL)
    scorer = fit_with(detector, inputs, options)
    others = [fit_with(detector, np.delete(inputs, at, axis=0), options) for at in range(3)]
    expected = [image_score(other, inputs[at]) for at, other in enumerate(others)]
    assert scorer.model.calibration.normal_scores.scores == pytest.approx(sorted(expected), rel=1e-3)
    mirrored = np.ascontiguousarray(inputs[0][:, ::-1])
    assert image_score(scorer, mirrored) < 0.9 * image_score(fit(detector, inputs), mirrored)


def test_views_of_a_region_of_interest_are_fitted_where_it_lies_in_them(detector: PatchCoreDetector) -> None:
    scorer = fit(detector, cards(1), LEFT_HALF)
    assert isinstance(scorer, PatchCoreScorer)
    for view, columns in ((View(), slice(0, 8)), (View(mirror=True), slice(6, 14))):
        positions = subspace_fit._normal_positions(scorer.pipeline, view).view(14, 14)
        expected = torch.zeros((14, 14), dtype=torch.bool)
        expected[:, columns] = True
        assert torch.equal(positions, expected)


def test_tiles_are_fitted_and_scored_as_one_image(detector: PatchCoreDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "_PIXELS_PER_INPUT", 224 * 224 // 4)  # groups of two tiles
    inputs = np.concatenate([np.tile(cards(seed), (1, 2, 2, 1)) for seed in (1, 2, 3)])  # (3, 448, 448, 3)
    options = dataclasses.replace(OPTIONS, input=InputOptions(longer_side_px=448, tile_px=224))
    scorer = detector.fit(inputs, options, ignore_progress)
    assert isinstance(scorer, PatchCoreScorer)
    pipeline = scorer.pipeline
    assert len(pipeline.tile_groups) > 1
    vectors = [pipeline.embed(inputs[at : at + 1])[0] for at in range(3)]
    expected = PatchSubspace.fit(PatchSums.of(torch.cat(vectors)))
    np.testing.assert_allclose(subspace_of(scorer).mean, expected.mean, rtol=1e-5, atol=1e-6)
    (raw,), (whole,) = scorer.score(inputs[:1])[0], pipeline.score(vectors[0][None], expected)
    assert raw.image_score == pytest.approx(whole.image_score, rel=1e-3)
    np.testing.assert_allclose(raw.anomaly_map, whole.anomaly_map, rtol=1e-3, atol=1e-4)


def test_a_subspace_of_another_backbone_is_refused(detector: PatchCoreDetector) -> None:
    model = fit(detector, cards(1)).model
    bank = subspace_of(fit(detector, cards(1)))
    other = dataclasses.replace(bank, mean=bank.mean[:-1].copy(), basis=bank.basis[:, :-1].copy())
    with pytest.raises(BankMismatchError, match="patches 196 x 327"):
        detector.open(dataclasses.replace(model, bank=other))
