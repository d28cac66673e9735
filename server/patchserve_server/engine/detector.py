"""PatchCore over one network: the engine's face to the layers above."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import Detection
from patchserve_server.domain.ports import DetectionTimes, DetectorInfo, Progress
from patchserve_server.domain.progress import LoadStage
from patchserve_server.domain.reference import (
    Calibration,
    CoresetOptions,
    EmbeddingSpec,
    MemoryBank,
    ReferenceModel,
    ScoringProfile,
)
from patchserve_server.engine.calibration import calibrate
from patchserve_server.engine.coreset import coreset_count, select_coreset
from patchserve_server.engine.devices import synchronize
from patchserve_server.engine.neighbours import BankIndex
from patchserve_server.engine.network import Network
from patchserve_server.engine.pipeline import Pipeline, RawScores
from patchserve_server.engine.scoring import anomaly_score, damage_score

_PRECISION = "fp32"
_IMAGES_PER_PASS = 8  # bounds the memory of a forward pass


class PatchCoreDetector:
    """Implements `domain.ports.Detector`. Safe to use from several threads at once."""

    def __init__(self, network: Network, *, knn_memory_bytes: int) -> None:
        self._network = network
        self._pipelines = {profile: Pipeline(network, profile, knn_memory_bytes) for profile in ScoringProfile}
        self._indices: WeakKeyDictionary[ReferenceModel, BankIndex] = WeakKeyDictionary()
        self._indices_lock = threading.Lock()

    @property
    def info(self) -> DetectorInfo:
        network = self._network
        return DetectorInfo(
            backbone=network.spec.name,
            weights_digest=network.weights_digest,
            weights_source=network.weights_source,
            fallback_reason=network.fallback_reason,
            device=str(network.device),
            precision=_PRECISION,
            input_size_px=network.spec.input_size_px,
            feature_dim=network.spec.feature_dim,
        )

    def spec(self, profile: ScoringProfile) -> EmbeddingSpec:
        network = self._network
        return EmbeddingSpec(network.spec.name, network.weights_digest, network.spec.preprocessing, _PRECISION, profile)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """One pass of a grey picture, so that what is slow once is slow before the first caller waits for it."""
        size_px = self._network.spec.input_size_px
        pipeline = self._pipelines[ScoringProfile.NOTEBOOK]
        patches = pipeline.patches(np.full((1, size_px, size_px, 3), 128, np.uint8))
        pipeline.score(patches, BankIndex(patches[0]))

    @torch.inference_mode()
    def fit(
        self, inputs: ModelInputs, profile: ScoringProfile, coreset: CoresetOptions, progress: Progress
    ) -> ReferenceModel:
        coreset_count(len(inputs) * self._network.spec.patches_per_image, coreset)  # refuses before the work begins
        vectors = self._pipelines[profile].embed(inputs, progress)
        return self._model(inputs, vectors, profile, coreset, progress)

    @torch.inference_mode()
    def extend(self, model: ReferenceModel, inputs: ModelInputs, progress: Progress) -> ReferenceModel:
        self._require(model.spec)
        pipeline, bank = self._pipelines[model.spec.profile], model.bank
        together = np.concatenate((bank.inputs, inputs))
        if len(bank.patches) == len(bank.inputs) * self._network.spec.patches_per_image:
            # Every row is there, in the pictures' order: embedding these pictures again would give the same.
            new = pipeline.embed(inputs, progress)
            old = torch.from_numpy(bank.patches).view(len(bank.inputs), *new.shape[1:])
            vectors = torch.cat((old, new))
        else:
            vectors = pipeline.embed(together, progress)
        return self._model(together, vectors, model.spec.profile, model.coreset, progress)

    @torch.inference_mode()
    def detect(self, model: ReferenceModel, inputs: ModelInputs) -> tuple[Sequence[Detection], DetectionTimes]:
        self._require(model.spec)
        pipeline, index = self._pipelines[model.spec.profile], self._index(model)
        detections: list[Detection] = []
        embed_s = search_s = 0.0
        for start in range(0, len(inputs), _IMAGES_PER_PASS):
            begun = time.perf_counter()
            patches = pipeline.patches(inputs[start : start + _IMAGES_PER_PASS])
            synchronize(self._network.device)
            embedded = time.perf_counter()
            detections += [_detection(raw, model.calibration) for raw in pipeline.score(patches, index)]
            embed_s += embedded - begun
            search_s += time.perf_counter() - embedded
        return detections, DetectionTimes(embed_ms=1000 * embed_s, search_ms=1000 * search_s)

    def _model(
        self, inputs: ModelInputs, vectors: Tensor, profile: ScoringProfile, coreset: CoresetOptions, progress: Progress
    ) -> ReferenceModel:
        """The model of pictures (N, S, S, 3) and all their patch vectors (N, P, D)."""
        patches = vectors.flatten(0, 1)
        image_index = torch.arange(len(inputs), dtype=torch.int32).repeat_interleave(vectors.shape[1])
        count = coreset_count(len(patches), coreset)
        if count < len(patches):
            rows = select_coreset(
                patches.to(self._network.device), count, progress=functools.partial(progress, LoadStage.CORESET)
            )
            kept = rows.cpu().sort().values
            patches, image_index = patches[kept], image_index[kept]
        bank = MemoryBank(patches.numpy(), image_index.numpy(), inputs)
        calibration = calibrate(self._pipelines[profile], bank, vectors, progress)
        return ReferenceModel(self.spec(profile), coreset, bank, calibration)

    def _index(self, model: ReferenceModel) -> BankIndex:
        """The model's bank ready to be searched: prepared once, freed with the model."""
        with self._indices_lock:
            index = self._indices.get(model)
            if index is None:
                index = BankIndex(torch.from_numpy(model.bank.patches).to(self._network.device))
                self._indices[model] = index
            return index

    def _require(self, spec: EmbeddingSpec) -> None:
        """Refuses a bank whose vectors mean something else than those of this detector."""
        theirs, ours = dataclasses.asdict(spec), dataclasses.asdict(self.spec(spec.profile))
        differing = [name for name in ours if theirs[name] != ours[name]]
        if differing:
            raise BankMismatchError(
                "",
                "This reference was built with "
                + ", ".join(f"{name} {theirs[name]}" for name in differing)
                + ", but this server runs "
                + ", ".join(f"{name} {ours[name]}" for name in differing)
                + ". Load its pictures again, or start the server as it was.",
            )


def _detection(raw: RawScores, calibration: Calibration) -> Detection:
    return Detection(
        anomaly_map=raw.anomaly_map,
        damage=damage_score(raw.anomaly_map),
        anomaly=anomaly_score(
            raw.image_score, calibration.image_threshold, raw.anomaly_map, calibration.patch_threshold
        ),
    )
