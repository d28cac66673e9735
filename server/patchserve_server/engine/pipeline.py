"""A network under one scoring profile: pictures to patch vectors, patch vectors to raw scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchserve_server.domain.images import AnomalyMap, ModelInputs
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.progress import LoadStage
from patchserve_server.domain.reference import ScoringProfile
from patchserve_server.engine.aggregation import aggregate_3x3, concat_layers
from patchserve_server.engine.neighbours import BankIndex, nearest
from patchserve_server.engine.network import Network
from patchserve_server.engine.scoring import (
    NOTEBOOK_NEIGHBOURS,
    PAPER_NEIGHBOURS,
    mean_of_nearest,
    notebook_map,
    paper_map,
    peak_score,
    reweighted_score,
)


@dataclass(frozen=True, slots=True, eq=False)
class RawScores:
    """Absolute distances of one picture to a bank."""

    image_score: float
    anomaly_map: AnomalyMap  # (S, S) float32


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything between model inputs and raw scores."""

    network: Network
    profile: ScoringProfile
    knn_memory_bytes: int

    def patches(self, inputs: ModelInputs) -> Tensor:
        """Patch vectors (B, P, D) float32 on the device, of inputs (B, S, S, 3) uint8."""
        layers = self.network.layers(inputs)
        if self.profile is ScoringProfile.PAPER:
            layers = tuple(aggregate_3x3(layer) for layer in layers)
        return concat_layers(layers, self.network.spec.grid)

    def embed(self, inputs: ModelInputs, progress: Progress) -> Tensor:
        """Patch vectors (N, P, D) of many pictures, in main memory.

        One picture at a time, so that its vectors do not depend, not even in the last bit, on the pictures beside it.
        """
        spec = self.network.spec
        vectors = torch.empty((len(inputs), spec.patches_per_image, spec.feature_dim))
        for at in range(len(inputs)):
            vectors[at] = self.patches(inputs[at : at + 1])[0]
            progress(LoadStage.EMBED, at + 1, len(inputs))
        return vectors

    def score(self, patches: Tensor, index: BankIndex, exclude_groups: Tensor | None = None) -> list[RawScores]:
        """Raw scores of each picture of a batch.

        Args:
            patches: (B, P, D) float32 on the device.
            index: a bank of the same network and profile.
            exclude_groups: (B,) integer; picture i sees no row of group exclude_groups[i].
        """
        pictures, count, dim = patches.shape
        paper = self.profile is ScoringProfile.PAPER
        distances, rows = nearest(
            patches.reshape(-1, dim),
            index,
            PAPER_NEIGHBOURS if paper else NOTEBOOK_NEIGHBOURS,
            memory_limit_bytes=self.knn_memory_bytes,
            exclude_groups=None if exclude_groups is None else exclude_groups.repeat_interleave(count),
        )
        scores = (distances[:, 0] if paper else mean_of_nearest(distances)).view(pictures, count)
        if paper:
            first = rows[:, 0].view(pictures, count)
            image_scores = reweighted_score(scores, first, patches, index, exclude_groups=exclude_groups)
        else:
            image_scores = peak_score(scores)
        stretch = paper_map if paper else notebook_map
        spec = self.network.spec
        maps = [stretch(grid, spec.input_size_px) for grid in scores.view(pictures, *spec.grid).cpu().numpy()]
        return [RawScores(*found) for found in zip(image_scores.tolist(), maps, strict=True)]
