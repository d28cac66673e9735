"""Tiling: a model input as overlapping tiles, and the part of the patch grid that each tile fills.

A network sees each tile on its own. Patches near the border of a tile lack what lies beyond it, so where two tiles
overlap, each fills the half of the overlap that is farther from its border. So every position of the grid is filled by
exactly one tile, and from there on nothing knows of tiles: search, maps and regions have no seams.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Self

import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec


@dataclass(frozen=True, slots=True)
class Span:
    """One tile on one axis."""

    start_px: int  # where the tile begins in the model input
    first: int  # the positions of the grid that it fills: first..stop-1
    stop: int


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its place in the model input, and the part of the grid that it fills."""

    rows: Span
    columns: Span


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a model input of one shape becomes tiles. All tiles have one shape; a single one is the whole model input."""

    shape: InputShape  # of model inputs
    tile_shape: InputShape
    stride_px: int  # of the patch grid
    tiles: tuple[Tile, ...]  # row by row

    @classmethod
    def of(cls, shape: InputShape, options: InputOptions, architecture: BackboneSpec) -> Self:
        """The tiles of model inputs of this shape, which are multiples of the backbone's step."""
        step_px, stride_px = architecture.step_px, architecture.stride_px
        if options.tile_px is None:
            sides_px = shape.sides_px
        else:
            tile_px = max(1, round(options.tile_px / step_px)) * step_px
            sides_px = (min(tile_px, shape.height_px), min(tile_px, shape.width_px))
        rows, columns = (
            _spans(whole_px, side_px, _overlap_px(side_px, options.tile_overlap, step_px), step_px, stride_px)
            for whole_px, side_px in zip(shape.sides_px, sides_px, strict=True)
        )
        return cls(shape, InputShape(*sides_px), stride_px, tuple(Tile(*spans) for spans in product(rows, columns)))

    @property
    def is_whole(self) -> bool:
        """Whether the only tile is the model input itself."""
        return len(self.tiles) == 1

    @property
    def grid(self) -> tuple[int, int]:
        """The patch grid (rows, columns) of a model input."""
        return self.shape.height_px // self.stride_px, self.shape.width_px // self.stride_px

    @property
    def tile_grid(self) -> tuple[int, int]:
        """The patch grid (rows, columns) of one tile."""
        return self.tile_shape.height_px // self.stride_px, self.tile_shape.width_px // self.stride_px

    def cut(self, inputs: ModelInputs, tiles: Sequence[Tile]) -> ModelInputs:
        """These tiles of each input: (B, H, W, 3) -> (B * T, h, w, 3), first all tiles of the first input."""
        if self.is_whole:
            return inputs
        height_px, width_px = self.tile_shape.sides_px
        cut = [
            inputs[:, top : top + height_px, left : left + width_px]
            for top, left in ((tile.rows.start_px, tile.columns.start_px) for tile in tiles)
        ]
        return np.stack(cut, axis=1).reshape(-1, height_px, width_px, inputs.shape[3])

    def core(self, vectors: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """The vectors that fill the grid: of tiles (B * T, p, D), as `cut` orders them -> (B, P, D).

        P counts the positions of these tiles, in the order of `positions`.
        """
        if self.is_whole:
            return vectors
        rows, columns = self.tile_grid
        by_tile = vectors.view(-1, len(tiles), rows, columns, vectors.shape[-1])
        cores = [by_tile[:, number, *self._core(tile)].flatten(1, 2) for number, tile in enumerate(tiles)]
        return torch.cat(cores, dim=1)

    def positions(self, tiles: Sequence[Tile]) -> Tensor:
        """The positions (P,) int64 in the grid that these tiles fill, tile by tile."""
        columns = self.grid[1]
        return torch.cat(
            [
                (torch.arange(tile.rows.first, tile.rows.stop)[:, None] * columns)
                .add(torch.arange(tile.columns.first, tile.columns.stop))
                .flatten()
                for tile in tiles
            ]
        )

    def groups(self, tiles_in_group: int) -> Iterator[tuple[Tile, ...]]:
        """All tiles, in groups of neighbors."""
        return (self.tiles[start : start + tiles_in_group] for start in range(0, len(self.tiles), tiles_in_group))

    def samples(self, inputs: ModelInputs, count: int, tiles: Sequence[Tile]) -> ModelInputs:
        """Some of these tiles (n, h, w, 3) of inputs (N, H, W, 3), at most `count`, evenly spaced.

        If the only tile is the whole input, all inputs unchanged.
        """
        if self.is_whole:
            return inputs
        total = len(inputs) * len(tiles)
        numbers = np.linspace(0, total, min(count, total), endpoint=False).astype(int).tolist()
        pairs = (divmod(number, len(tiles)) for number in numbers)
        return np.concatenate([self.cut(inputs[image : image + 1], [tiles[tile]]) for image, tile in pairs])

    def _core(self, tile: Tile) -> tuple[slice, slice]:
        """The part of a tile's own grid that fills the grid of the model input."""
        row, column = tile.rows.start_px // self.stride_px, tile.columns.start_px // self.stride_px
        return (
            slice(tile.rows.first - row, tile.rows.stop - row),
            slice(tile.columns.first - column, tile.columns.stop - column),
        )


def _overlap_px(side_px: int, overlap: float, step_px: int) -> int:
    """The least overlap of two tiles: a multiple of the step, and smaller than a tile."""
    return min(round(overlap * side_px / step_px) * step_px, side_px - step_px)


def _spans(whole_px: int, side_px: int, overlap_px: int, step_px: int, stride_px: int) -> list[Span]:
    """As few tiles as overlap enough, spread evenly. They begin at multiples of the step."""
    free_px = whole_px - side_px
    count = 1 + math.ceil(free_px / (side_px - overlap_px))
    starts = [number * free_px // max(1, count - 1) // step_px * step_px for number in range(count)]
    # In the middle of the overlap, or the patch before it.
    cuts = [(start + side_px + following) // 2 // stride_px for start, following in pairwise(starts)]
    edges = pairwise([0, *cuts, whole_px // stride_px])
    return [Span(start, first, stop) for start, (first, stop) in zip(starts, edges, strict=True)]
