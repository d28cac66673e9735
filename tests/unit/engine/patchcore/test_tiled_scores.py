"""With tiles, a defect is found wherever it lies, and nothing depends on how the tiles are grouped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fakes.engine import fit, ignore_progress, inspect
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import AspectRatio, InputOptions, InputShape
from patchserve_server.domain.ports import Progress, Scorer
from patchserve_server.domain.reference_options import (
    CoresetOptions,
    ReferenceOptions,
    ReferenceViews,
    RegionOfInterest,
    ScoringProfile,
)
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore import pipeline as pipeline_module
from patchserve_server.engine.patchcore.patch_scores import PatchScores, WorstPatches
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer

SHAPE = InputShape(384, 608)  # 2 x 4 tiles
TILED = InputOptions(aspect=AspectRatio.KEEP, longer_side_px=608, tile_px=224, tile_overlap=0.25)
DEFECT_PX = 24
STRIDE_PX = 16  # of the embedded backbone


def fabrics(*seeds: int) -> ModelInputs:
    """Woven fabric (N, H, W, 3), with other noise for each seed."""
    rows, columns = np.mgrid[: SHAPE.height_px, : SHAPE.width_px]
    weave = 128 + 30 * np.sin(rows * np.pi / 16) * np.cos(columns * np.pi / 16)
    images = [weave[..., None] + np.random.default_rng(seed).normal(0, 6, (*SHAPE.sides_px, 3)) for seed in seeds]
    return np.stack(images).clip(0, 255).astype(np.uint8)


def damaged(left_px: int, top_px: int) -> ModelInputs:
    inputs = fabrics(9)
    cv2.circle(inputs[0], (left_px + DEFECT_PX // 2, top_px + DEFECT_PX // 2), DEFECT_PX // 2, (20, 20, 40), -1)
    return inputs


@pytest.fixture(scope="module")
def scorer(detector: PatchCoreDetector) -> Scorer:
    return fit(detector, fabrics(1, 2, 3, 4), ReferenceOptions(input=TILED))


@settings(max_examples=25)
@given(left_px=st.integers(0, SHAPE.width_px - DEFECT_PX), top_px=st.integers(0, SHAPE.height_px - DEFECT_PX))
def test_a_defect_is_found_wherever_it_lies(scorer: Scorer, left_px: int, top_px: int) -> None:
    [found] = inspect(scorer, damaged(left_px, top_px))
    row, column = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
    assert abs(row - top_px - DEFECT_PX / 2) <= 2 * STRIDE_PX
    assert abs(column - left_px - DEFECT_PX / 2) <= 2 * STRIDE_PX
    assert found.anomaly.is_anomalous
    assert found.anomaly.raw_score > 1.1 * found.anomaly.raw_threshold


def test_an_intact_image_is_intact_and_its_map_has_no_seams(scorer: Scorer) -> None:
    [found] = inspect(scorer, fabrics(8))
    assert not found.anomaly.is_anomalous
    assert found.anomaly_map.shape == SHAPE.sides_px
    assert isinstance(scorer, PatchCoreScorer)
    inside = found.anomaly_map[3 * STRIDE_PX : -3 * STRIDE_PX]  # without the border of the image
    cuts_px = sorted({STRIDE_PX * tile.columns.first for tile in scorer.pipeline.tiling.tiles})[1:]
    at_seams = np.concatenate([inside[:, cut - STRIDE_PX : cut + STRIDE_PX] for cut in cuts_px])
    assert at_seams.mean() < 1.2 * inside[:, 3 * STRIDE_PX : -3 * STRIDE_PX].mean()


def test_the_place_hardly_changes_the_score(scorer: Scorer) -> None:
    assert isinstance(scorer, PatchCoreScorer)
    cuts_px = sorted({STRIDE_PX * tile.columns.first for tile in scorer.pipeline.tiling.tiles})[1:]
    lefts_px = [*range(100, 160, STRIDE_PX), *(cut - DEFECT_PX // 2 for cut in cuts_px)]  # inside a tile, on each seam
    scores = [inspect(scorer, damaged(left, 180))[0].anomaly.raw_score for left in lefts_px]
    assert max(scores) < 1.25 * min(scores)


@pytest.mark.parametrize("profile", ScoringProfile)
def test_small_damage_counts_as_in_an_image_of_a_tiles_size(
    detector: PatchCoreDetector, profile: ScoringProfile
) -> None:
    """It is not lost among the many patches of a large image."""
    scorer = fit(detector, fabrics(1, 2, 3), ReferenceOptions(profile, input=TILED))
    assert isinstance(scorer, PatchCoreScorer)
    pipeline, index = scorer.pipeline, scorer.index
    rows, columns = pipeline.tiling.tile_grid
    tile = replace(
        pipeline, shape=pipeline.tiling.tile_shape, tiling=replace(pipeline.tiling, tiles=pipeline.tiling.tiles[:1])
    )

    def score(scored: Pipeline, grid: tuple[int, int]) -> float:
        distances = torch.ones(1, *grid)
        distances[0, 4:6, 3:6] = 3.0
        flat = distances.flatten(1)
        worst = None
        if profile is ScoringProfile.PAPER:
            worst = WorstPatches(torch.full((1, 1), 3.0), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, 328))
        scores = PatchScores(torch.arange(flat.shape[1]), flat, torch.ones_like(flat), worst)
        return scored.scores_without_maps(scores, index)[0]

    of_tile = 3.0 if profile is ScoringProfile.VERDICT else score(tile, (rows, columns))  # the highest patch
    assert score(pipeline, pipeline.grid) == pytest.approx(of_tile)


@pytest.mark.parametrize("profile", ScoringProfile)
def test_groups_of_tiles_do_not_matter(
    detector: PatchCoreDetector, profile: ScoringProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ReferenceOptions(profile, input=TILED)
    if profile is not ScoringProfile.SUBSPACE:  # which keeps no patches to select or search
        options = replace(options, coreset=CoresetOptions(max_patches=200), search_radius=0.1)
    scorer, inputs = fit(detector, fabrics(1, 2, 3), options), np.concatenate([damaged(300, 200), fabrics(8)])
    together = inspect(scorer, inputs)
    monkeypatch.setattr(pipeline_module, "_PIXELS_PER_INPUT", 1)
    for expected, found in zip(together, inspect(scorer, inputs), strict=True):
        np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-4)
        assert found.anomaly.raw_score == pytest.approx(expected.anomaly.raw_score, rel=1e-4)


def test_tiles_are_kept_over_opening_and_extending(detector: PatchCoreDetector) -> None:
    options = ReferenceOptions(input=TILED)
    together = fit(detector, fabrics(1, 2, 3), options)
    extended = detector.extend(fit(detector, fabrics(1), options), fabrics(2, 3), ignore_progress)
    np.testing.assert_array_equal(extended.model.memory_bank.patches, together.model.memory_bank.patches)
    image = damaged(10, 10)
    [expected] = inspect(together, image)
    for scorer in (extended, detector.open(together.model)):
        np.testing.assert_array_equal(inspect(scorer, image)[0].anomaly_map, expected.anomaly_map)


def test_a_region_of_interest_counts_only_what_is_inside_over_all_tiles(detector: PatchCoreDetector) -> None:
    left_half: RegionOfInterest = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)
    for profile in (ScoringProfile.NOTEBOOK, ScoringProfile.PAPER):
        options = ReferenceOptions(profile, region_of_interest=left_half, input=TILED)
        scorer = fit(detector, fabrics(1, 2, 3), options)
        [inside], [outside] = inspect(scorer, damaged(100, 100)), inspect(scorer, damaged(450, 100))
        assert inside.anomaly.is_anomalous
        assert not outside.anomaly.is_anomalous
        assert np.isnan(outside.anomaly_map[:, 310:]).all()


def test_a_network_of_one_reference_is_made_of_its_tiles(
    detector: PatchCoreDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, runtime_for = list[tuple[int, ...]](), SharedBackbone.runtime_for

    def record(backbone: Any, inputs: ModelInputs, progress: Progress) -> Runtime:
        seen.append(inputs.shape)
        runtime: Runtime = runtime_for(backbone, inputs, progress)
        return runtime

    monkeypatch.setattr(SharedBackbone, "runtime_for", record)
    model = fit(detector, fabrics(1, 2), ReferenceOptions(coreset=CoresetOptions(max_patches=16), input=TILED)).model
    detector.open(model)
    assert seen == [(2 * 8, 224, 224, 3)] * 2


def test_the_memory_of_a_fit_is_known_before_it_is_spent(detector: PatchCoreDetector) -> None:
    patches, dim = 24 * 38, detector.info.feature_dim
    for options in (ReferenceOptions(), ReferenceOptions(input=TILED)):
        buffers = detector.shared_nbytes(SHAPE, options)  # by the threads of this machine
        two, three = (detector.fit_nbytes(SHAPE, options, count) - buffers for count in (2, 3))
        assert 3 * patches * dim * 4 < three < 3 * patches * dim * 12
        assert two < three
    coreset = replace(ReferenceOptions(), coreset=CoresetOptions(max_patches=16))
    assert detector.fit_nbytes(SHAPE, coreset, 3) >= detector.fit_nbytes(SHAPE, ReferenceOptions(), 3)  # at its peak
    few, turned = ReferenceOptions(), ReferenceOptions(views=ReferenceViews.ALL)
    shared = detector.shared_nbytes(SHAPE, few)
    without = [detector.fit_nbytes(SHAPE, options, 3) - shared for options in (turned, few)]
    assert 3 < without[0] / without[1] <= 4  # 4 views of each
    assert shared > detector.shared_nbytes(SHAPE, ReferenceOptions(input=TILED)) == 0  # tiles of 224 px
