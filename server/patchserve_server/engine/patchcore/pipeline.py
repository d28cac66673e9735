"""A backbone under one reference's options: images to patch vectors, patch vectors to raw scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.images import AnomalyMap, ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.reference import ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.architectures import BackboneSpec
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.patchcore.patch_embedding import aggregate_3x3, concat_layers
from patchserve_server.engine.patchcore.region_of_interest import RegionMask, region_mask_of
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
from patchserve_server.engine.search.exact import BankIndex
from patchserve_server.engine.search.ivf_index import IvfIndex
from patchserve_server.engine.search.parallel import ParallelSearch


@dataclass(frozen=True, slots=True, eq=False)
class RawScores:
    """Absolute distances of one image to a bank."""

    image_score: float
    anomaly_map: AnomalyMap  # (S, S) float32, NaN outside of the region of interest


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """What a search found for each patch of each image, nearest first."""

    distances: Tensor  # (B, P, k) float32
    rows: Tensor  # (B, P, k) int64


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """Everything between model inputs and raw scores."""

    spec: BackboneSpec
    runtime: Runtime
    options: ReferenceOptions
    searcher: ParallelSearch
    interest: RegionMask | None = field(init=False)
    reach: Tensor | None = field(init=False)  # (P, P) bool: which places lie within the search radius of each

    def __post_init__(self) -> None:
        spec, options = self.spec, self.options
        object.__setattr__(self, "interest", region_mask_of(options.region_of_interest, spec.input_size_px, spec.grid))
        reach = None if options.search_radius is None else places_within(options.search_radius, spec.grid)
        object.__setattr__(self, "reach", None if reach is None else reach.to(self.runtime.device))

    @property
    def is_paper(self) -> bool:
        return self.options.profile is ScoringProfile.PAPER

    def seen(self, inputs: ModelInputs) -> ModelInputs:
        """What counts of images (B, S, S, 3)."""
        return inputs if self.interest is None else self.interest.painted(inputs)

    def patches(self, inputs: ModelInputs) -> Tensor:
        """Patch vectors (B, P, D) float32 on the device, of inputs (B, S, S, 3) uint8."""
        layers = self.runtime.layers(self.seen(inputs))
        if self.is_paper:
            layers = tuple(aggregate_3x3(layer) for layer in layers)
        return concat_layers(layers, self.spec.grid)

    def embed(self, inputs: ModelInputs, progress: Progress) -> Tensor:
        """Patch vectors (N, P, D) of many images, in main memory.

        One image at a time, so that its vectors do not depend, not even in the last bit, on the images beside it.
        """
        spec = self.spec
        vectors = torch.empty((len(inputs), spec.patches_per_image, spec.feature_dim))
        for at in range(len(inputs)):
            vectors[at] = self.patches(inputs[at : at + 1])[0]
            progress(LoadStage.EMBED, at + 1, len(inputs))
        return vectors

    def lists(self, patches: Tensor) -> IvfIndex | None:
        """Of a bank (P, D) on the device, where it is to be searched by them; this may take a while."""
        return IvfIndex.of(patches) if self.options.approximate_search else None

    def search(self, patches: Tensor, index: BankIndex, exclude_groups: Tensor | None = None) -> Neighbors:
        """The nearest rows of each patch, as many as the profile needs.

        A patch within whose search radius there is no row looks everywhere.

        Args:
            patches: (B, P, D) float32 on the device.
            index: a bank of the same backbone and options.
            exclude_groups: (B,) integer; image i sees no row of group exclude_groups[i].
        """
        images, count, dim = patches.shape
        queries = patches.reshape(-1, dim)
        hidden = None if exclude_groups is None else exclude_groups.repeat_interleave(count)
        visible = None if self.reach is None else self.reach.repeat(images, 1)
        distances, rows = self.nearest(queries, index, hidden, visible)
        lost = rows[:, 0] < 0
        if visible is not None and bool(lost.any()):
            everywhere = None if hidden is None else hidden[lost]
            distances[lost], rows[lost] = self.nearest(queries[lost], index, everywhere, None)
        return Neighbors(distances.view(images, count, -1), rows.view(images, count, -1))

    def nearest(
        self, queries: Tensor, index: BankIndex, exclude_groups: Tensor | None, visible_places: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`nearest` with the profile's number of neighbors."""
        return self.searcher.nearest(
            queries,
            index,
            PAPER_NEIGHBORS if self.is_paper else NOTEBOOK_NEIGHBORS,
            exclude_groups=exclude_groups,
            visible_places=visible_places,
        )

    def judge(
        self, found: Neighbors, patches: Tensor, index: BankIndex, exclude_groups: Tensor | None = None
    ) -> list[RawScores]:
        """Raw scores of each image from what a search with the same arguments found; `index` tells the spacing."""
        scores = mean_of_nearest(found.distances)  # (B, P)
        counted = slice(None) if self.interest is None else torch.from_numpy(self.interest.patches).to(scores.device)
        if self.is_paper:
            image_scores = reweighted_score(
                scores[:, counted],
                found.rows[:, counted, 0],
                patches[:, counted],
                index,
                self.searcher,
                exclude_groups=exclude_groups,
            )
        else:
            spacing = torch.ones_like(scores) if index.spacing is None else mean_spacing(index.spacing, found.rows)
            image_scores = spaced_score(scores[:, counted], spacing[:, counted])
        maps = [self._map(grid) for grid in scores.view(len(scores), *self.spec.grid).cpu().numpy()]
        return [RawScores(*found) for found in zip(image_scores.tolist(), maps, strict=True)]

    def score(self, patches: Tensor, index: BankIndex, exclude_groups: Tensor | None = None) -> list[RawScores]:
        """`judge` of what `search` finds."""
        return self.judge(self.search(patches, index, exclude_groups), patches, index, exclude_groups)

    def _map(self, scores: np.ndarray) -> AnomalyMap:
        stretch = paper_map if self.is_paper else notebook_map
        anomaly_map = stretch(scores, self.spec.input_size_px)
        if self.interest is not None:
            anomaly_map[~self.interest.pixels] = np.nan
        return anomaly_map


def places_within(radius: float, grid: tuple[int, int]) -> Tensor:
    """Which places (P, P) bool of a grid (rows, columns) see each other: at most `radius` apart on either axis.

    The radius is a share of the grid's side; a place always sees itself and the ones right beside it.
    """
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    near_rows = (rows[:, None] - rows).abs() <= max(1.0, radius * grid[0])  # (h, h)
    near_columns = (columns[:, None] - columns).abs() <= max(1.0, radius * grid[1])  # (w, w)
    both = near_rows[:, None, :, None] & near_columns[None, :, None, :]  # (h, w, h, w)
    return both.reshape(grid[0] * grid[1], -1)
