"""From model inputs to raw scores, with the options of one reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.images import AnomalyMap, ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.patchcore.patch_embedding import aggregate_3x3, concat_layers
from patchserve_server.engine.patchcore.region_of_interest import RoiMask, cover_outside
from patchserve_server.engine.patchcore.scoring import (
    NOTEBOOK_NEIGHBORS,
    PAPER_NEIGHBORS,
    mean_of_nearest,
    mean_spacing,
    notebook_map,
    paper_map,
    reweighted_score,
    spaced_score,
)
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """The nearest bank rows of each patch of each image, nearest first."""

    distances: Tensor  # (B, P, k) float32; infinity if there are fewer than k
    rows: Tensor  # (B, P, k) int64; -1 if there are fewer than k


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """The steps between model inputs and raw scores."""

    architecture: BackboneSpec
    runtime: Runtime
    shape: InputShape  # of the model inputs
    options: ReferenceOptions
    parallel_search: ParallelSearch
    roi_mask: RoiMask | None  # None: the whole image counts
    visible_positions: Tensor | None  # (P, P) bool: the positions within the search radius of each; None: all

    @classmethod
    def build(
        cls,
        architecture: BackboneSpec,
        runtime: Runtime,
        shape: InputShape,
        options: ReferenceOptions,
        parallel_search: ParallelSearch,
        *,
        roi_mask: RoiMask | None = None,
    ) -> Pipeline:
        """Create the steps. `roi_mask` is the result of `build_roi_mask` for these options."""
        visible = None
        if options.search_radius is not None:
            visible = positions_within(options.search_radius, architecture.grid_of(shape)).to(runtime.device)
        return cls(architecture, runtime, shape, options, parallel_search, roi_mask, visible)

    @property
    def grid(self) -> tuple[int, int]:
        """The patch grid (rows, columns)."""
        return self.architecture.grid_of(self.shape)

    @property
    def is_paper(self) -> bool:
        return self.options.profile is ScoringProfile.PAPER

    def mask(self, inputs: ModelInputs) -> ModelInputs:
        """Model inputs (B, H, W, 3) with everything outside the region of interest covered."""
        return cover_outside(self.roi_mask, inputs)

    def embed(self, masked_inputs: ModelInputs) -> Tensor:
        """Patch vectors (B, P, D) float32 on the device, of masked inputs (B, H, W, 3) uint8."""
        layers = self.runtime.layers(masked_inputs)
        if self.is_paper:
            layers = tuple(aggregate_3x3(layer) for layer in layers)
        return concat_layers(layers, self.grid)

    def embed_each(self, masked_inputs: ModelInputs, progress: Progress) -> Tensor:
        """Patch vectors (N, P, D) float32 of many masked inputs, in main memory.

        The inputs go through the backbone one at a time, so that the vectors of an image are exactly the same with any
        other images.
        """
        count = len(masked_inputs)
        vectors = torch.empty((count, self.architecture.patches_of(self.shape), self.architecture.feature_dim))
        for image in range(count):
            vectors[image] = self.embed(masked_inputs[image : image + 1])[0]
            progress(LoadStage.EMBED, image + 1, count)
        return vectors

    def search(self, patches: Tensor, index: BankIndex, exclude_groups: Tensor | None = None) -> Neighbors:
        """The nearest rows of each patch, as many as the profile needs.

        A patch with no row within its search radius is compared with the whole bank.

        Args:
            patches: (B, P, D) float32 on the device.
            index: a bank of the same backbone and options.
            exclude_groups: (B,) integer; image i finds no row of group exclude_groups[i].
        """
        images, positions, dim = patches.shape
        queries = patches.reshape(-1, dim)
        excluded = None if exclude_groups is None else exclude_groups.repeat_interleave(positions)
        visible = None if self.visible_positions is None else self.visible_positions.repeat(images, 1)
        distances, rows = self.nearest(queries, index, excluded, visible)
        is_empty = rows[:, 0] < 0
        if visible is not None and bool(is_empty.any()):
            still_excluded = None if excluded is None else excluded[is_empty]
            distances[is_empty], rows[is_empty] = self.nearest(queries[is_empty], index, still_excluded, None)
        return Neighbors(distances.view(images, positions, -1), rows.view(images, positions, -1))

    def nearest(
        self, queries: Tensor, index: BankIndex, exclude_groups: Tensor | None, visible_places: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`ParallelSearch.nearest` with the profile's number of neighbors."""
        return self.parallel_search.nearest(
            queries,
            index,
            PAPER_NEIGHBORS if self.is_paper else NOTEBOOK_NEIGHBORS,
            exclude_groups=exclude_groups,
            visible_places=visible_places,
        )

    def raw_scores(
        self, neighbors: Neighbors, patches: Tensor, index: BankIndex, exclude_groups: Tensor | None = None
    ) -> list[RawScores]:
        """The raw scores of each image, from its neighbors in the bank.

        Args:
            neighbors: the result of `search` with the same arguments.
            patches: (B, P, D) float32 on the device.
            index: the bank, with its spacing.
            exclude_groups: (B,) integer, as in `search`.
        """
        scores = mean_of_nearest(neighbors.distances)  # (B, P)
        counted = slice(None) if self.roi_mask is None else torch.from_numpy(self.roi_mask.patches).to(scores.device)
        if self.is_paper:
            image_scores = reweighted_score(
                scores[:, counted],
                neighbors.rows[:, counted, 0],
                patches[:, counted],
                index,
                self.parallel_search,
                exclude_groups=exclude_groups,
            )
        else:
            spacing = torch.ones_like(scores) if index.spacing is None else mean_spacing(index.spacing, neighbors.rows)
            image_scores = spaced_score(scores[:, counted], spacing[:, counted])
        maps = [self._anomaly_map(grid) for grid in scores.view(len(scores), *self.grid).cpu().numpy()]
        return [RawScores(*pair) for pair in zip(image_scores.tolist(), maps, strict=True)]

    def score(self, patches: Tensor, index: BankIndex) -> list[RawScores]:
        """The raw scores of each image against the whole bank."""
        return self.raw_scores(self.search(patches, index), patches, index)

    def _anomaly_map(self, patch_scores: np.ndarray) -> AnomalyMap:
        scale_up = paper_map if self.is_paper else notebook_map
        anomaly_map = scale_up(patch_scores, self.shape.map_shape)
        if self.roi_mask is not None:
            anomaly_map[~self.roi_mask.pixels_of_map] = np.nan
        return anomaly_map

    @property
    def nbytes(self) -> int:
        """The memory of the masks."""
        visible = 0 if self.visible_positions is None else self.visible_positions.nbytes
        return visible + (0 if self.roi_mask is None else self.roi_mask.nbytes)


def pipeline_nbytes(architecture: BackboneSpec, shape: InputShape, options: ReferenceOptions) -> int:
    """The `nbytes` of a pipeline with these options."""
    positions, pixels = architecture.patches_of(shape), shape.pixels + shape.map_shape.pixels
    visible = positions**2 if options.search_radius is not None else 0
    return visible + (positions + pixels if options.region_of_interest else 0)


def positions_within(radius: float, grid: tuple[int, int]) -> Tensor:
    """Which positions (P, P) bool of a grid (rows, columns) are within `radius` of each other, on both axes.

    The radius is a fraction of the grid's side. A position and its direct neighbors are always within it.
    """
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    near_rows = (rows[:, None] - rows).abs() <= max(1.0, radius * grid[0])  # (h, h)
    near_columns = (columns[:, None] - columns).abs() <= max(1.0, radius * grid[1])  # (w, w)
    near = near_rows[:, None, :, None] & near_columns[None, :, None, :]  # (h, w, h, w)
    return near.reshape(grid[0] * grid[1], -1)
