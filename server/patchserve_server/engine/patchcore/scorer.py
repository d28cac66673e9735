"""An open reference of PatchCore."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import ScoringTimes
from patchserve_server.domain.reference import MemoryBank, ReferenceModel
from patchserve_server.engine.backbone.devices import synchronize
from patchserve_server.engine.patchcore.patch_scores import PatchScores
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.recall import measure_recall


@dataclass(frozen=True, slots=True, eq=False)
class PatchCoreScorer:
    """Implements `domain.ports.Scorer`."""

    model: ReferenceModel
    pipeline: Pipeline
    index: BankIndex | PatchSubspace
    nbytes: int

    @property
    def patches_per_image(self) -> int:
        return self.pipeline.architecture.patches_of(self.pipeline.shape)

    @torch.inference_mode()
    def search_recall(self) -> float:
        bank, pipeline = self.model.bank, self.pipeline
        if not isinstance(bank, MemoryBank) or not isinstance(self.index, BankIndex):
            return 1.0
        return measure_recall(
            self.index, torch.from_numpy(bank.image_index), pipeline.neighbor_count, pipeline.parallel_search
        )

    @torch.inference_mode()
    def score(self, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
        return score_inputs(self.pipeline, self.pipeline.mask(inputs), self.index)


def score_inputs(
    pipeline: Pipeline, masked_inputs: ModelInputs, index: BankIndex | PatchSubspace
) -> tuple[Sequence[RawScores], ScoringTimes]:
    """The raw scores of masked inputs (B, H, W, 3) against a bank.

    Tiles are scored in groups of neighbors. Of each group only the scores of its patches are kept, so that the vectors
    of a large image are never in memory together.
    """
    scores, embed_s, search_s = list[RawScores](), 0.0, 0.0
    for start in range(0, len(masked_inputs), pipeline.images_per_pass):
        images, parts = masked_inputs[start : start + pipeline.images_per_pass], list[PatchScores]()
        for tiles in pipeline.tile_groups:
            started_at_s = time.perf_counter()
            patches = pipeline.embed(images, tiles)
            synchronize(pipeline.runtime.device)
            embedded_at_s = time.perf_counter()
            positions = pipeline.tiling.positions(tiles).to(patches.device)
            parts.append(pipeline.scores_against(patches, index, positions))
            embed_s += embedded_at_s - started_at_s
            search_s += time.perf_counter() - embedded_at_s
        started_at_s = time.perf_counter()
        scores += pipeline.image_scores(PatchScores.join(parts), index)
        search_s += time.perf_counter() - started_at_s
    return scores, ScoringTimes(embed_ms=1000 * embed_s, search_ms=1000 * search_s)
