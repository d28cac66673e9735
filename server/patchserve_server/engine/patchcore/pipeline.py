"""From model inputs to raw scores, with the options of one reference."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
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
from patchserve_server.engine.patchcore.patch_scores import Neighbors, PatchScores, WorstPatches
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.region_of_interest import RoiMask, cover_outside
from patchserve_server.engine.patchcore.scoring import (
    NOTEBOOK_NEIGHBORS,
    PAPER_NEIGHBORS,
    REWEIGHTING_NEIGHBORS,
    highest_score,
    mean_of_nearest,
    mean_spacing,
    notebook_map,
    paper_map,
    reweighted_score,
    spaced_score,
    verdict_score,
)
from patchserve_server.engine.patchcore.tiles_of_region import covered_tiles, needed_tiles
from patchserve_server.engine.patchcore.tiling import Tile, Tiling
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.near_places import NearPlaces
from patchserve_server.engine.search.parallel import ParallelSearch

_PIXELS_PER_INPUT = 320 * 320
"""Limits the memory of a forward pass: wide_resnet50_2 needs about 400 bytes for each pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """The steps between model inputs and raw scores."""

    architecture: BackboneSpec
    runtime: Runtime
    shape: InputShape  # of the model inputs
    options: ReferenceOptions
    parallel_search: ParallelSearch
    roi_mask: RoiMask | None  # None: the whole image counts
    tiling: Tiling
    needed: frozenset[Tile]  # the tiles that an inspection embeds

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
        tiling = Tiling.of(shape, options.input, architecture)
        needed = needed_tiles(tiling, roi_mask, is_smoothed=options.profile is ScoringProfile.PAPER)
        return cls(architecture, runtime, shape, options, parallel_search, roi_mask, tiling, frozenset(needed))

    @property
    def grid(self) -> tuple[int, int]:
        """The patch grid (rows, columns)."""
        return self.architecture.grid_of(self.shape)

    @property
    def is_paper(self) -> bool:
        return self.options.profile is ScoringProfile.PAPER

    @property
    def neighbor_count(self) -> int:
        """How many neighbors of a patch the profile looks at."""
        return PAPER_NEIGHBORS if self.is_paper else NOTEBOOK_NEIGHBORS

    @property
    def images_per_pass(self) -> int:
        return self._inputs_per_pass(self.shape)

    @property
    def tiles_per_pass(self) -> int:
        return self._inputs_per_pass(self.tiling.tile_shape)

    def _inputs_per_pass(self, shape: InputShape) -> int:
        largest = self.runtime.largest_pass
        return max(1, min(largest, largest * _PIXELS_PER_INPUT // shape.pixels))

    @property
    def tile_groups(self) -> Sequence[Sequence[Tile]]:
        """The tiles of an image that its region of interest needs, in groups that are scored at once."""
        needed = ([tile for tile in tiles if tile in self.needed] for tiles in self._all_groups())
        return [tiles for tiles in needed if tiles]

    def _all_groups(self) -> Iterator[Sequence[Tile]]:
        return self.tiling.groups(self.tiles_per_pass)

    @property
    def batch_key(self) -> str:
        """Equal for pipelines whose tiles can go through the same network in one pass."""
        return f"{id(self.runtime):x} {self.tiling.tile_shape}"

    def mask(self, inputs: ModelInputs) -> ModelInputs:
        """Model inputs (B, H, W, 3) with everything outside the region of interest covered.

        Raises:
            ValueError: they have another shape.
        """
        return cover_outside(self.roi_mask, self.checked(inputs))

    def checked(self, inputs: ModelInputs) -> ModelInputs:
        """The same model inputs.

        Raises:
            ValueError: they have another shape.
        """
        if inputs.shape[1:] != (*self.shape.sides_px, 3):
            raise ValueError(f"The shape of the model inputs is {inputs.shape[1:]}, not {(*self.shape.sides_px, 3)}.")
        return inputs

    def embed(self, masked_inputs: ModelInputs, tiles: Sequence[Tile] | None = None) -> Tensor:
        """Patch vectors (B, P, D) float32 on the device, of masked inputs (B, H, W, 3) uint8.

        `tiles`: only those that fill these tiles' part of the grid, in the order of `Tiling.positions`. None: all, in
        the order of the grid.
        """
        if tiles is None:
            return self._embed_all(masked_inputs)
        return self.patch_vectors(self.runtime.layers(self.tiling.cut(masked_inputs, tiles)), tiles)

    def patch_vectors(self, layers: Sequence[Tensor], tiles: Sequence[Tile]) -> Tensor:
        """Patch vectors (B, P, D), as of `embed`, from the network's layers (B * T, C, h, w) of these tiles."""
        return self.tiling.core(self.vectors_of_tiles(layers), tiles)

    def vectors_of_tiles(self, layers: Sequence[Tensor]) -> Tensor:
        """Vectors (N, p, D) of all patches of tiles, also of those that another tile fills."""
        used = tuple(aggregate_3x3(layer) for layer in layers) if self.is_paper else layers
        return concat_layers(used, self.tiling.tile_grid)

    def _embed_all(self, masked_inputs: ModelInputs) -> Tensor:
        if self.tiling.is_whole:
            return self.embed(masked_inputs, self.tiling.tiles)
        size = (len(masked_inputs), self.architecture.patches_of(self.shape), self.architecture.feature_dim)
        vectors = torch.empty(size, device=self.runtime.device)
        covered = covered_tiles(self.tiling, self.roi_mask)
        for tiles in self._all_groups():
            if shown := [tile for tile in tiles if tile not in covered]:
                vectors[:, self.tiling.positions(shown).to(vectors.device)] = self.embed(masked_inputs, shown)
        if covered:
            self._fill_covered(vectors, masked_inputs, covered)
        return vectors

    def _fill_covered(self, vectors: Tensor, masked_inputs: ModelInputs, covered: Collection[Tile]) -> None:
        """Fill vectors (B, P, D) where these tiles are. They all show the cover, so only one of them is embedded."""
        first = next(iter(covered))
        of_cover = self.vectors_of_tiles(self.runtime.layers(self.tiling.cut(masked_inputs[:1], [first])))
        for tile in covered:
            positions = self.tiling.positions([tile]).to(vectors.device)
            vectors[:, positions] = self.tiling.core(of_cover, [tile])

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

    def search(
        self,
        patches: Tensor,
        index: BankIndex,
        exclude_groups: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Neighbors:
        """The nearest rows of each patch, as many as the profile needs.

        A patch with no row within its search radius is compared with the whole bank.

        Args:
            patches: (B, P, D) float32 on the device.
            index: a bank of the same backbone and options.
            exclude_groups: (B,) integer; image i finds no row of group exclude_groups[i].
            positions: (P,) int64, of the patches in the grid; None: the whole grid in its order.
        """
        images, count, dim = patches.shape
        excluded = None if exclude_groups is None else exclude_groups.repeat_interleave(count)
        places = torch.arange(count, device=patches.device) if positions is None else positions
        distances, rows = self.search_places(patches.reshape(-1, dim), index, places.repeat(images), excluded)
        return Neighbors(distances.view(images, count, -1), rows.view(images, count, -1))

    def search_places(
        self, queries: Tensor, index: BankIndex, places: Tensor, excluded: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same for patches (Q, D) at these places (Q,) of the grid: distances (Q, k) and rows (Q, k)."""
        near = self.near(places)
        distances, rows = self.nearest(queries, index, excluded, near)
        is_empty = rows[:, 0] < 0
        if near is not None and bool(is_empty.any()):
            still_excluded = None if excluded is None else excluded[is_empty]
            distances[is_empty], rows[is_empty] = self.nearest(queries[is_empty], index, still_excluded, None)
        return distances, rows

    def near(self, places: Tensor) -> NearPlaces | None:
        """What is within the search radius of these places (Q,) of the grid; None: there is no search radius."""
        radius = self.options.search_radius
        return None if radius is None else NearPlaces.within(radius, self.grid, places)

    def nearest(
        self, queries: Tensor, index: BankIndex, exclude_groups: Tensor | None, near: NearPlaces | None
    ) -> tuple[Tensor, Tensor]:
        """`ParallelSearch.nearest` with the profile's number of neighbors."""
        return self.parallel_search.nearest(
            queries,
            index,
            self.neighbor_count,
            exclude_groups=exclude_groups,
            near=near,
        )

    def patch_scores(
        self,
        neighbors: Neighbors,
        patches: Tensor,
        index: BankIndex,
        positions: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> PatchScores:
        """The scores of patches from their neighbors: the result of `search` with the same arguments.

        `counted`: which positions are in the region of interest, (P,) bool, if that is known already.
        """
        distances = mean_of_nearest(neighbors.distances, is_complete=neighbors.is_complete)  # (B, P)
        positions = torch.arange(distances.shape[1], device=distances.device) if positions is None else positions
        if self.is_paper:
            worst = WorstPatches.of(
                distances, neighbors.rows[:, :, 0], patches, self._counted(positions) if counted is None else counted
            )
            return PatchScores(positions, distances, torch.ones_like(distances), worst)
        if index.spacing is None:
            return PatchScores(positions, distances, torch.ones_like(distances), None)
        spacing = mean_spacing(index.spacing, neighbors.rows, is_complete=neighbors.is_complete)
        return PatchScores(positions, distances, spacing, None)

    def scores_against(
        self, patches: Tensor, index: BankIndex | PatchSubspace, positions: Tensor | None = None
    ) -> PatchScores:
        """The scores of patches (B, P, D) against the whole bank. `positions`: as in `search`."""
        if isinstance(index, BankIndex):
            return self.patch_scores(self.search(patches, index, positions=positions), patches, index, positions)
        distances = index.distances(patches)  # (B, P)
        positions = torch.arange(distances.shape[1], device=distances.device) if positions is None else positions
        return PatchScores(positions, distances, torch.ones_like(distances), None)

    def _counted(self, positions: Tensor) -> Tensor | None:
        """Which of the positions (P,) are in the region of interest: (P,) bool; None: all."""
        if self.roi_mask is None:
            return None
        return torch.from_numpy(self.roi_mask.patches).to(positions.device)[positions]

    def image_scores(
        self, scores: PatchScores, index: BankIndex | PatchSubspace, exclude_groups: Tensor | None = None
    ) -> list[RawScores]:
        """The raw scores of each image, from the scores of its patches. Arguments: as for `scores_without_maps`."""
        image_scores = self.scores_without_maps(scores, index, exclude_groups)
        maps = [self._anomaly_map(grid) for grid in self._on_grid(scores.distances, scores.positions).cpu().numpy()]
        return [RawScores(*pair) for pair in zip(image_scores, maps, strict=True)]

    def scores_without_maps(
        self, scores: PatchScores, index: BankIndex | PatchSubspace, exclude_groups: Tensor | None = None
    ) -> list[float]:
        """The raw image score of each image: that of `image_scores`.

        Args:
            scores: of every position of the grid that counts or that the map inside the region of interest needs.
            index: the bank, with its spacing.
            exclude_groups: (B,) integer, as in `search`.
        """
        if scores.worst is None or isinstance(index, PatchSubspace):
            counted = self._counted(scores.positions)
            shown = slice(None) if counted is None else counted
            return self.scores_of_counted(scores.distances[:, shown], scores.spacing[:, shown]).tolist()
        worst, search = scores.worst, self.parallel_search
        reweighted = reweighted_score(
            worst,
            index.patches.__getitem__,
            lambda support: search.nearest(support, index, REWEIGHTING_NEIGHBORS, exclude_groups=exclude_groups),
        )
        return reweighted.tolist()

    def scores_of_counted(self, distances: Tensor, spacing: Tensor) -> Tensor:
        """The image scores (B,) from distances and spacing (B, P) of patches that count, not for PAPER."""
        if self.options.profile is not ScoringProfile.VERDICT:
            return spaced_score(distances, spacing, patches_per_tile=math.prod(self.tiling.tile_grid))
        return verdict_score(distances, spacing) if self.tiling.is_whole else highest_score(distances, spacing)

    def _on_grid(self, values: Tensor, positions: Tensor) -> Tensor:
        """Values (B, P) at their positions (P,) in the grid: (B, rows, columns)."""
        rows, columns = self.grid
        grid = values.new_zeros((len(values), rows * columns))
        grid[:, positions] = values
        return grid.view(-1, rows, columns)

    def raw_scores(
        self, neighbors: Neighbors, patches: Tensor, index: BankIndex, exclude_groups: Tensor | None = None
    ) -> list[RawScores]:
        """The raw scores of each image, from the neighbors of all its patches.

        Args:
            neighbors: the result of `search` with the same arguments.
            patches: (B, P, D) float32 on the device, in the order of the grid.
            index: the bank, with its spacing.
            exclude_groups: (B,) integer, as in `search`.
        """
        return self.image_scores(self.patch_scores(neighbors, patches, index), index, exclude_groups)

    def score(self, patches: Tensor, index: BankIndex | PatchSubspace) -> list[RawScores]:
        """The raw scores of each image against the whole bank, from all its patches (B, P, D)."""
        return self.image_scores(self.scores_against(patches, index), index)

    def _anomaly_map(self, patch_scores: np.ndarray) -> AnomalyMap:
        scale_up = paper_map if self.is_paper else notebook_map
        anomaly_map = scale_up(patch_scores, self.shape.map_shape)
        if self.roi_mask is not None:
            anomaly_map[~self.roi_mask.pixels_of_map] = np.nan
        return anomaly_map

    @property
    def nbytes(self) -> int:
        """The memory of the masks."""
        return 0 if self.roi_mask is None else self.roi_mask.nbytes
