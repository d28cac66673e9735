"""An open reference of PatchCore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import ScoringTimes
from patchserve_server.domain.reference import MemoryBank, ReferenceModel
from patchserve_server.engine.patchcore.batch_scoring import Part, score_parts
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

    @property
    def batch_key(self) -> str:
        return self.pipeline.batch_key

    @torch.inference_mode()
    def search_recall(self) -> float:
        bank, pipeline = self.model.bank, self.pipeline
        if not isinstance(bank, MemoryBank) or not isinstance(self.index, BankIndex):
            return 1.0
        return measure_recall(
            self.index, torch.from_numpy(bank.image_index), pipeline.neighbor_count, pipeline.parallel_search
        )

    def score(self, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
        return score_inputs(self.pipeline, inputs, self.index)


def score_inputs(
    pipeline: Pipeline, inputs: ModelInputs, index: BankIndex | PatchSubspace
) -> tuple[Sequence[RawScores], ScoringTimes]:
    """The raw scores of inputs (B, H, W, 3), at least one, against a bank."""
    (scored,) = score_parts([Part(0, pipeline, index, inputs)])
    if isinstance(scored.scores, Exception):
        raise scored.scores
    return scored.scores, scored.times
