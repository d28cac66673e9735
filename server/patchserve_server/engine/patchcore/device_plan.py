"""What scoring against one reference needs on its device, so that nothing else is sent there later."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_options import ScoringProfile
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.region_of_interest import COVER_LEVEL
from patchserve_server.engine.patchcore.scoring import NOTEBOOK_NEIGHBORS, PAPER_NEIGHBORS, smooth_axis
from patchserve_server.engine.patchcore.tiling import Tile
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.device_search import DeviceIndex


@dataclass(frozen=True, slots=True, eq=False)
class TileGroup:
    """Tiles that are searched together."""

    positions: Tensor  # (P,) int64, of their patches in the grid
    counted: Tensor | None  # (P,) bool; None: all of them count


@dataclass(frozen=True, slots=True, eq=False)
class DevicePlan:
    """Create it with `build`."""

    pipeline: Pipeline
    bank: DeviceIndex | PatchSubspace
    groups: dict[tuple[Tile, ...], TileGroup]
    positions: Tensor  # (P,) int64, of all patches that are searched, group by group
    counted: Tensor | None  # (C,) int64, which of them count; None: all
    seen: Tensor | None  # (H, W) bool, the pixels of model inputs that count; None: all
    seen_on_map: Tensor | None  # (h, w) bool
    stretch_rows: Tensor  # (h, rows) float32
    stretch_columns: Tensor  # (w, columns) float32

    @classmethod
    def build(cls, pipeline: Pipeline, index: BankIndex | PatchSubspace) -> DevicePlan:
        device, mask = pipeline.runtime.device, pipeline.roi_mask
        counts = None if mask is None else torch.from_numpy(mask.patches)
        groups, order = dict[tuple[Tile, ...], TileGroup](), list[Tensor]()
        for tiles in pipeline.tile_groups:
            positions = pipeline.tiling.positions(tiles)
            order.append(positions)
            counted = None if counts is None else counts[positions].to(device)
            groups[tuple(tiles)] = TileGroup(positions.to(device), counted)
        joined, map_shape = torch.cat(order), pipeline.shape.map_shape
        rows, columns = (
            _stretching(patches, pixels, is_smoothed=pipeline.is_paper)
            for patches, pixels in zip(pipeline.grid, map_shape.sides_px, strict=True)
        )
        return cls(
            pipeline,
            DeviceIndex.build(index) if isinstance(index, BankIndex) else index,
            groups,
            joined.to(device),
            None if counts is None else counts[joined].nonzero()[:, 0].to(device),
            None if mask is None else torch.from_numpy(mask.pixels).to(device),
            None if mask is None else torch.from_numpy(mask.pixels_of_map).to(device),
            rows.to(device),
            columns.to(device),
        )

    @property
    def runtime(self) -> DeviceRuntime:
        if not isinstance(self.pipeline.runtime, DeviceRuntime):
            raise TypeError(f"{self.pipeline.runtime} is no runtime of a device.")
        return self.pipeline.runtime

    @property
    def joint_key(self) -> Hashable | None:
        """Equal for plans whose images can be searched and scored at once; None: only alone.

        Their banks differ, and may have different numbers of rows.
        """
        pipeline, bank = self.pipeline, self.bank
        is_plain = self.seen is None and pipeline.tiling.is_whole and pipeline.options.search_radius is None
        if not is_plain or not isinstance(bank, DeviceIndex):
            return None
        return pipeline.options.profile, pipeline.shape, bank.counts(PAPER_NEIGHBORS), bank.counts(NOTEBOOK_NEIGHBORS)

    @property
    def nbytes(self) -> int:
        """Without the index, and without positions: they are a thousandth of it."""
        parts = (self.seen, self.seen_on_map, self.stretch_rows, self.stretch_columns)
        own = sum(tensor.nbytes for tensor in parts if tensor is not None)
        return own + (self.bank.nbytes if isinstance(self.bank, DeviceIndex) else 0)

    @staticmethod
    def predict_nbytes(info: ReferenceInfo, grid: tuple[int, int]) -> int:
        """`nbytes` of the plan of a reference with this patch grid (rows, columns)."""
        shape, map_shape = info.input_shape, info.input_shape.map_shape
        stretching = sum(4 * pixels * patches for pixels, patches in zip(map_shape.sides_px, grid, strict=True))
        masks = shape.pixels + map_shape.pixels if info.options.region_of_interest else 0
        if info.options.profile is ScoringProfile.SUBSPACE:
            return stretching + masks
        return stretching + masks + DeviceIndex.predict_nbytes(info.patch_count, info.feature_dim)

    def cover(self, images: Tensor) -> Tensor:
        """Images (B, H, W, 3) uint8, gray outside the region of interest."""
        return images if self.seen is None else images.where(self.seen[..., None], COVER_LEVEL)

    def cut(self, images: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """As `Tiling.cut`, on the device."""
        tiling = self.pipeline.tiling
        if tiling.is_whole:
            return images
        height_px, width_px = tiling.tile_shape.sides_px
        corners = [(tile.rows.start_px, tile.columns.start_px) for tile in tiles]
        cut = [images[:, top : top + height_px, left : left + width_px] for top, left in corners]
        return torch.stack(cut, dim=1).flatten(0, 1)

    def maps(self, distances: Tensor) -> Tensor:
        """The anomaly maps (B, h, w) of distances (B, P) at all positions."""
        rows, columns = self.pipeline.grid
        grid = distances
        if not self.pipeline.tiling.is_whole:
            grid = distances.new_zeros((len(distances), rows * columns))
            grid[:, self.positions] = distances
        stretched = grid.reshape(-1, columns) @ self.stretch_columns.T
        maps = self.stretch_rows.expand(len(grid), -1, -1).bmm(stretched.view(len(grid), rows, -1))
        return maps if self.seen_on_map is None else maps.where(self.seen_on_map, torch.nan)


def _stretching(patches: int, pixels: int, *, is_smoothed: bool) -> Tensor:
    """The matrix (pixels, patches) float32 that makes one axis of a map: that of `notebook_map` or `paper_map`.

    Both axes are independent of each other, so a map is two products.
    """
    stretched = cv2.resize(np.eye(patches), (patches, pixels), interpolation=cv2.INTER_LINEAR)
    axis = stretched.astype(np.float64)
    return torch.from_numpy(smooth_axis(axis) if is_smoothed else axis).float()
