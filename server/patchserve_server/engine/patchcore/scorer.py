"""An open reference of PatchCore."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import ScoringTimes
from patchserve_server.domain.reference import ReferenceModel
from patchserve_server.engine.backbone.devices import synchronize
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.search.bank_index import BankIndex

_IMAGES_PER_PASS = 8  # limits the memory of a forward pass


@dataclass(frozen=True, slots=True, eq=False)
class PatchCoreScorer:
    """Implements `domain.ports.Scorer`."""

    model: ReferenceModel
    pipeline: Pipeline
    index: BankIndex | PatchSubspace
    nbytes: int

    @torch.inference_mode()
    def score(self, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
        pipeline, scores = self.pipeline, list[RawScores]()
        embed_s = search_s = 0.0
        for start in range(0, len(inputs), _IMAGES_PER_PASS):
            started_at_s = time.perf_counter()
            patches = pipeline.embed(pipeline.mask(inputs[start : start + _IMAGES_PER_PASS]))
            synchronize(pipeline.runtime.device)
            embedded_at_s = time.perf_counter()
            scores += pipeline.score(patches, self.index)
            embed_s += embedded_at_s - started_at_s
            search_s += time.perf_counter() - embedded_at_s
        return scores, ScoringTimes(embed_ms=1000 * embed_s, search_ms=1000 * search_s)
