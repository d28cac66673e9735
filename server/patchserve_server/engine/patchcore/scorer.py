"""An open reference of PatchCore."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import ScoredPart, ScoringTimes
from patchserve_server.domain.reference import Bank, MemoryBank, ReferenceModel
from patchserve_server.domain.subspace import Subspace
from patchserve_server.engine.patchcore.batch_scoring import Part, score_parts
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.device_scoring import DevicePart, score_on_device
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.recall import measure_recall
from patchserve_server.engine.search.search_product import SearchProduct


@dataclass(frozen=True, slots=True, eq=False)
class PatchCoreScorer:
    """Implements `domain.ports.Scorer`."""

    model: ReferenceModel
    pipeline: Pipeline
    index: BankIndex | PatchSubspace
    nbytes: int
    plan: DevicePlan | None = None  # of a GPU

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
        if self.plan is None:
            return score_inputs(self.pipeline, inputs, self.index)
        return outcome_of(score_on_device([DevicePart(0, self.pipeline, self.index, inputs, plan=self.plan)]))


def index_of(
    bank: Bank, device: torch.device, *, approximate: bool, product: SearchProduct
) -> BankIndex | PatchSubspace:
    """A bank on a device, prepared for scoring."""
    if isinstance(bank, Subspace):
        return PatchSubspace(torch.from_numpy(bank.mean).to(device), torch.from_numpy(bank.basis).to(device))
    return BankIndex.build(
        torch.from_numpy(bank.patches).to(device),
        places=torch.from_numpy(bank.grid_index).to(device),
        spacing=torch.from_numpy(bank.spacing).to(device),
        approximate=approximate,
        product=product,
    )


def score_inputs(
    pipeline: Pipeline, inputs: ModelInputs, index: BankIndex | PatchSubspace
) -> tuple[Sequence[RawScores], ScoringTimes]:
    """The raw scores of inputs (B, H, W, 3), at least one, against a bank."""
    return outcome_of(score_parts([Part(0, pipeline, index, inputs)]))


def outcome_of(scored_parts: Iterable[ScoredPart]) -> tuple[Sequence[RawScores], ScoringTimes]:
    """The outcome of the only part of a batch; what failed is raised."""
    (scored,) = scored_parts
    if isinstance(scored.scores, Exception):
        raise scored.scores
    return scored.scores, scored.times
