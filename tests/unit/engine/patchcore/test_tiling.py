"""Tiles fill each position of the patch grid once, and a network sees no difference away from their borders."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.patchcore.tiling import Tiling

SPEC = replace(BACKBONES["efficientnet_lite2"], step_px=8, stride_px=4)
SIDES = st.integers(1, 60).map(lambda steps: 8 * steps)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    options = InputOptions(tile_px=draw(st.integers(224, 330)), tile_overlap=draw(st.floats(0, 0.5)))
    return Tiling.of(InputShape(draw(SIDES), draw(SIDES)), options, SPEC)


@given(tilings())
def test_each_position_is_filled_by_one_tile(tiling: Tiling) -> None:
    rows, columns = tiling.grid
    filled = torch.cat([tiling.positions([tile]) for tile in tiling.tiles])
    assert torch.equal(filled.sort().values, torch.arange(rows * columns))


@given(tilings())
def test_tiles_lie_inside_and_begin_at_steps(tiling: Tiling) -> None:
    for tile in tiling.tiles:
        for span, whole_px, side_px in (
            (tile.rows, tiling.shape.height_px, tiling.tile_shape.height_px),
            (tile.columns, tiling.shape.width_px, tiling.tile_shape.width_px),
        ):
            assert span.start_px % SPEC.step_px == 0
            assert 0 <= span.start_px <= whole_px - side_px
            assert span.start_px <= span.first * SPEC.stride_px < span.stop * SPEC.stride_px <= span.start_px + side_px


@given(tilings(), st.data())
def test_a_core_keeps_half_of_the_overlap_away_from_inner_borders(tiling: Tiling, data: st.DataObject) -> None:
    tile = data.draw(st.sampled_from(tiling.tiles))
    for span, whole_px, side_px, starts in (
        (tile.rows, tiling.shape.height_px, tiling.tile_shape.height_px, {t.rows.start_px for t in tiling.tiles}),
        (tile.columns, tiling.shape.width_px, tiling.tile_shape.width_px, {t.columns.start_px for t in tiling.tiles}),
    ):
        ordered = sorted(starts)
        number = ordered.index(span.start_px)
        before_px = span.first * SPEC.stride_px - span.start_px
        if number == 0:
            assert before_px == 0
        else:
            overlap_px = ordered[number - 1] + side_px - span.start_px
            assert overlap_px // 2 - SPEC.stride_px <= before_px <= overlap_px // 2
        if span.start_px + side_px == whole_px:
            assert span.stop * SPEC.stride_px == whole_px


def test_without_tiles_the_only_one_is_the_whole_input() -> None:
    tiling = Tiling.of(InputShape(320, 640), InputOptions(), SPEC)
    inputs = np.zeros((2, 320, 640, 3), np.uint8)
    assert tiling.is_whole
    assert tiling.cut(inputs, tiling.tiles) is inputs
    assert tiling.samples(inputs, 1, tiling.tiles) is inputs


def test_a_picture_smaller_than_a_tile_on_one_axis_uses_its_own_side_there() -> None:
    tiling = Tiling.of(InputShape(64, 960), InputOptions(tile_px=230, tile_overlap=0.25), SPEC)
    assert tiling.tile_shape == InputShape(64, 232)
    assert len(tiling.tiles) == 6  # 232 px, then at most 176 px more each
    assert {tile.rows.start_px for tile in tiling.tiles} == {0}


def means_of_3_x_3(inputs: ModelInputs) -> Tensor:
    """A network with a small receptive field: patches of 4 px, each the mean of 12 px around: (B, P, 3)."""
    images = torch.from_numpy(inputs).permute(0, 3, 1, 2).double()
    patches = torch.nn.functional.avg_pool2d(images, 4)
    means = torch.nn.functional.avg_pool2d(patches, 3, stride=1, padding=1, count_include_pad=False)
    return means.flatten(2).transpose(1, 2)


@given(tilings(), st.integers(1, 5))
@settings(max_examples=40)
def test_a_network_that_sees_less_than_the_overlap_gives_what_it_gives_without_tiles(
    tiling: Tiling, in_group: int
) -> None:
    starts = sorted({tile.rows.start_px for tile in tiling.tiles}), sorted({t.columns.start_px for t in tiling.tiles})
    overlaps = [
        before + side - after
        for ordered, side in zip(starts, tiling.tile_shape.sides_px, strict=True)
        for before, after in pairwise(ordered)
    ]
    inputs = np.random.default_rng(1).integers(0, 256, (2, *tiling.shape.sides_px, 3), dtype=np.uint8)
    whole, tiled = means_of_3_x_3(inputs), torch.full((2, tiling.grid[0] * tiling.grid[1], 3), torch.nan).double()
    for tiles in tiling.groups(in_group):
        tiled[:, tiling.positions(tiles)] = tiling.core(means_of_3_x_3(tiling.cut(inputs, tiles)), tiles)
    if all(overlap >= 2 * SPEC.step_px for overlap in overlaps):
        torch.testing.assert_close(tiled, whole)
    assert tiled.isfinite().all()


@pytest.mark.parametrize("count", [1, 7, 100])
def test_samples_are_tiles_of_all_images(count: int) -> None:
    tiling = Tiling.of(InputShape(400, 400), InputOptions(tile_px=224), SPEC)
    inputs = np.stack([np.full((400, 400, 3), level, np.uint8) for level in (10, 20, 30)])
    samples = tiling.samples(inputs, count, tiling.tiles)
    assert samples.shape == (min(count, 3 * len(tiling.tiles)), 224, 224, 3)
    assert set(samples.flatten().tolist()) == ({10, 20, 30} if count > 1 else {10})
