"""Tiles outside the region of interest are not embedded, and nobody can tell from the result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import AspectRatio, InputOptions, InputShape
from patchserve_server.domain.reference_options import ReferenceOptions, RegionOfInterest, ScoringProfile
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace, PatchSums
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.region_of_interest import build_roi_mask
from patchserve_server.engine.patchcore.scorer import score_inputs
from patchserve_server.engine.patchcore.tiles_of_region import covered_tiles, int8_samples
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch

SPEC = replace(BACKBONES["efficientnet_lite2"], step_px=16, stride_px=8, feature_dim=3)
COVER = 127
LEFT_TENTH: RegionOfInterest = (((0.0, 0.0), (0.1, 0.0), (0.1, 1.0), (0.0, 1.0)),)


@dataclass
class MeanColors:
    """A runtime whose patches are the mean colors of their pixels."""

    precision: str = "fp32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    nbytes: int = 0
    streams: int = 1
    largest_pass: int = 8
    seen: int = 0

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        self.seen += len(inputs)
        images = torch.from_numpy(inputs.astype(np.float32)).permute(0, 3, 1, 2)
        return (torch.nn.functional.avg_pool2d(images, SPEC.stride_px),)


def pipeline_of(shape: InputShape, region: RegionOfInterest, profile: ScoringProfile, tile_px: int = 224) -> Pipeline:
    tiles = InputOptions(aspect=AspectRatio.KEEP, tile_px=tile_px)
    options = ReferenceOptions(profile, region_of_interest=region, input=tiles)
    mask = build_roi_mask(region, shape, SPEC.grid_of(shape))
    return Pipeline.build(SPEC, MeanColors(), shape, options, ParallelSearch(1), roi_mask=mask)


def noise(shape: InputShape, count: int = 2) -> ModelInputs:
    return np.random.default_rng(1).integers(0, 256, (count, *shape.sides_px, 3), dtype=np.uint8)


SHARES = st.floats(0, 1)
SIDES = st.integers(14, 60).map(lambda steps: 16 * steps)


@st.composite
def rectangles(draw: st.DrawFn) -> RegionOfInterest:
    """One or two rectangles of any size, also without area."""

    def rectangle() -> tuple[tuple[float, float], ...]:
        left, right = sorted((draw(SHARES), draw(SHARES)))
        top, bottom = sorted((draw(SHARES), draw(SHARES)))
        return ((left, top), (right, top), (right, bottom), (left, bottom))

    return tuple(rectangle() for _ in range(draw(st.integers(1, 2))))


@settings(max_examples=40, deadline=None)
@given(rectangles(), SIDES, SIDES, st.sampled_from(ScoringProfile))
def test_results_are_those_of_all_tiles(
    region: RegionOfInterest, height_px: int, width_px: int, profile: ScoringProfile
) -> None:
    shape = InputShape(height_px, width_px)
    pipeline, inputs = pipeline_of(shape, region, profile), noise(shape)
    rows = torch.rand(300, 3, generator=torch.Generator().manual_seed(0)) * 255
    is_subspace = profile is ScoringProfile.SUBSPACE
    index = PatchSubspace.fit(PatchSums.of(rows * torch.tensor([1, 1, 0]))) if is_subspace else BankIndex.build(rows)
    masked = pipeline.mask(inputs)
    found, _ = score_inputs(pipeline, masked, index)
    expected, _ = score_inputs(replace(pipeline, needed=frozenset(pipeline.tiling.tiles)), masked, index)
    for one, other in zip(found, expected, strict=True):
        assert one.image_score == other.image_score
        np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)


@settings(max_examples=40, deadline=None)
@given(rectangles(), SIDES, SIDES)
def test_covered_tiles_have_the_vectors_of_the_cover(region: RegionOfInterest, height_px: int, width_px: int) -> None:
    shape = InputShape(height_px, width_px)
    pipeline = pipeline_of(shape, region, ScoringProfile.NOTEBOOK)
    masked = pipeline.mask(noise(shape))
    plain = replace(pipeline, roi_mask=None)
    assert torch.equal(pipeline.embed(masked), plain.embed(masked))


@pytest.mark.parametrize("profile", ScoringProfile)
def test_only_the_tiles_near_the_region_are_embedded(profile: ScoringProfile) -> None:
    shape = InputShape(224, 2240)
    pipeline = pipeline_of(shape, LEFT_TENTH, profile)
    runtime = pipeline.runtime
    assert isinstance(runtime, MeanColors)
    assert len(pipeline.tiling.tiles) == 14
    score_inputs(pipeline, pipeline.mask(noise(shape, 1)), PatchSubspace(torch.zeros(3), torch.eye(3)[:1]))
    assert runtime.seen == 2
    pipeline.embed(pipeline.mask(noise(shape, 1)))
    assert runtime.seen == 2 + 2 + 1  # two that show a part of the region, and one for all others


@settings(max_examples=40, deadline=None)
@given(rectangles(), SIDES, SIDES)
def test_a_network_in_int8_is_made_of_tiles_that_show_the_region(
    region: RegionOfInterest, height_px: int, width_px: int
) -> None:
    shape = InputShape(height_px, width_px)
    pipeline = pipeline_of(shape, region, ScoringProfile.NOTEBOOK)
    inputs = np.full((3, *shape.sides_px, 3), COVER + 1, np.uint8)
    samples = int8_samples(pipeline.tiling, pipeline.mask(inputs), pipeline.roi_mask)
    if pipeline.tiling.is_whole:
        assert len(samples) == 3
    else:
        shown = len(pipeline.tiling.tiles) - len(covered_tiles(pipeline.tiling, pipeline.roi_mask))
        assert len(samples) == min(64, 3 * shown)
        assert (samples != COVER).any(axis=(1, 2, 3)).all()
