"""Which tiles a region of interest needs: the others are not embedded when an image is inspected."""

from __future__ import annotations

import math
from typing import Final

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.patchcore.region_of_interest import RoiMask
from patchserve_server.engine.patchcore.scoring import SMOOTHING_REACH_PX
from patchserve_server.engine.patchcore.tiling import Span, Tile, Tiling

_SAMPLES: Final = 64
"""How many tiles of a reference decide its network in int8, which needs to see no more."""


def needed_tiles(tiling: Tiling, roi_mask: RoiMask | None, *, is_smoothed: bool) -> tuple[Tile, ...]:
    """The tiles whose patches count, or change the map inside the region; None: all tiles.

    Args:
        tiling: of the model inputs.
        roi_mask: of the same model inputs.
        is_smoothed: whether maps are those of `paper_map`.
    """
    if roi_mask is None or tiling.is_whole:
        return tiling.tiles
    reach_px = _reach_px(tiling.shape, tiling.stride_px, is_smoothed=is_smoothed)

    def filled(span: Span) -> slice:
        first_px, stop_px = span.first * tiling.stride_px, span.stop * tiling.stride_px
        return slice(max(0, first_px - reach_px), stop_px + reach_px)

    return tuple(tile for tile in tiling.tiles if roi_mask.pixels[filled(tile.rows), filled(tile.columns)].any())


def covered_tiles(tiling: Tiling, roi_mask: RoiMask | None) -> frozenset[Tile]:
    """The tiles in which no pixel counts: they all show the same, the cover. Empty without a region."""
    if roi_mask is None or tiling.is_whole:
        return frozenset()
    height_px, width_px = tiling.tile_shape.sides_px

    def shows_region(tile: Tile) -> bool:
        top, left = tile.rows.start_px, tile.columns.start_px
        return bool(roi_mask.pixels[top : top + height_px, left : left + width_px].any())

    return frozenset(tile for tile in tiling.tiles if not shows_region(tile))


def int8_samples(tiling: Tiling, masked: ModelInputs, roi_mask: RoiMask | None) -> ModelInputs:
    """Tiles (n, h, w, 3) of masked inputs (N, H, W, 3) that show a part of the region, for a network of their own."""
    covered = covered_tiles(tiling, roi_mask)
    return tiling.samples(masked, _SAMPLES, [tile for tile in tiling.tiles if tile not in covered])


def _reach_px(shape: InputShape, stride_px: int, *, is_smoothed: bool) -> int:
    """How far from its patch a pixel of the map depends on it, in pixels of the model input.

    A map is interpolated between patches, so a pixel depends on those up to a stride away. Pixels of the map of a very
    large input are larger than those of the input.
    """
    map_pixel_px = math.ceil(shape.width_px / shape.map_shape.width_px)
    return stride_px + map_pixel_px * (1 + (SMOOTHING_REACH_PX if is_smoothed else 0))
