"""PatchCore over one network: the engine's face to the layers above."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import Detection
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import DetectionTimes, DetectorInfo, Progress
from patchserve_server.domain.reference import (
    Calibration,
    EmbeddingSpec,
    MemoryBank,
    ReferenceModel,
    ReferenceOptions,
)
from patchserve_server.engine.backbone.devices import synchronize
from patchserve_server.engine.backbone.network import Network
from patchserve_server.engine.patchcore.calibration import calibrate
from patchserve_server.engine.patchcore.coreset import coreset_count, select_coreset
from patchserve_server.engine.patchcore.pipeline import Pipeline, RawScores
from patchserve_server.engine.patchcore.scoring import anomaly_score, damage_score
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch

_IMAGES_PER_PASS = 8  # bounds the memory of a forward pass


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    pipeline: Pipeline
    index: BankIndex


class PatchCoreDetector:
    """Implements `domain.ports.Detector`. Safe to use from several threads at once."""

    def __init__(self, network: Network, threads: int | None = None) -> None:
        """threads: how many search at once; None: as many as torch uses."""
        self._network = network
        self._threads = threads or torch.get_num_threads()
        searching = self._threads if network.device.type == "cpu" else 1
        self._answering, self._fitting = (
            ParallelSearch(searching),
            ParallelSearch(searching),
        )  # an answer waits for no fit
        self._prepared: WeakKeyDictionary[ReferenceModel, _Prepared] = WeakKeyDictionary()
        self._prepared_lock = threading.Lock()

    @property
    def info(self) -> DetectorInfo:
        network = self._network
        return DetectorInfo(
            backbone=network.spec.name,
            weights_digest=network.weights_digest,
            weights_source=network.weights_source,
            fallback_reason=network.fallback_reason,
            device=str(network.device),
            precision=network.precision,
            input_size_px=network.spec.input_size_px,
            feature_dim=network.spec.feature_dim,
            bytes_per_reference=network.spec.int8_bytes if network.quantizer else 0,
        )

    @property
    def spec(self) -> EmbeddingSpec:
        network = self._network
        return EmbeddingSpec(network.spec.name, network.weights_digest, network.spec.preprocessing, network.precision)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """One pass of a gray image, so that what is slow once is slow before the first caller waits for it."""
        size_px = self._network.spec.input_size_px
        pipeline = self._pipeline(ReferenceOptions())
        patches = pipeline.patches(np.full((1, size_px, size_px, 3), 128, np.uint8))
        pipeline.score(patches, BankIndex.build(patches[0]))

    @torch.inference_mode()
    def fit(self, inputs: ModelInputs, options: ReferenceOptions, progress: Progress) -> ReferenceModel:
        coreset_count(len(inputs) * self._network.spec.patches_per_image, options.coreset)  # refuses before the work
        pipeline = self._fitting_pipeline(options)
        seen = pipeline.seen(inputs)
        pipeline = pipeline.for_reference(seen, progress)
        return self._model(pipeline, seen, pipeline.embed(seen, progress), progress)

    @torch.inference_mode()
    def extend(self, model: ReferenceModel, inputs: ModelInputs, progress: Progress) -> ReferenceModel:
        self._require(model)
        pipeline, bank = self._fitting_pipeline(model.options), model.bank
        together = np.concatenate((bank.inputs, pipeline.seen(inputs)))
        pipeline = pipeline.for_reference(together, progress)
        is_whole = len(bank.patches) == len(bank.inputs) * self._network.spec.patches_per_image
        if is_whole and pipeline.network is self._network:
            # Every row is there, in the images' order: embedding these images again would give the same.
            new = pipeline.embed(inputs, progress)
            old = torch.from_numpy(bank.patches).view(len(bank.inputs), *new.shape[1:])
            vectors = torch.cat((old, new))
        else:
            vectors = pipeline.embed(together, progress)
        return self._model(pipeline, together, vectors, progress)

    @torch.inference_mode()
    def prepare(self, model: ReferenceModel) -> None:
        """Builds what a reference has beside its stored form: its own network in int8, the index of its bank."""
        self._prepare(model)
        if self._network.quantizer is not None:  # warms the network up
            self.detect(model, model.bank.inputs[:1])

    @torch.inference_mode()
    def detect(self, model: ReferenceModel, inputs: ModelInputs) -> tuple[Sequence[Detection], DetectionTimes]:
        prepared = self._prepare(model)
        pipeline, index = prepared.pipeline, prepared.index
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

    def _pipeline(self, options: ReferenceOptions) -> Pipeline:
        return Pipeline(self._network, options, self._answering)

    def _fitting_pipeline(self, options: ReferenceOptions) -> Pipeline:
        torch.set_num_threads(self._threads)  # torch has a number for each thread that calls it; a coreset wants all
        return Pipeline(self._network, options, self._fitting)

    def _model(self, pipeline: Pipeline, inputs: ModelInputs, vectors: Tensor, progress: Progress) -> ReferenceModel:
        """The model of images (N, S, S, 3) and all their patch vectors (N, P, D)."""
        patches = vectors.flatten(0, 1)
        count = coreset_count(len(patches), pipeline.options.coreset)
        kept = torch.arange(len(patches))
        if count < len(patches):
            rows = select_coreset(
                patches.to(self._network.device),
                count,
                progress=lambda done, all_: progress(LoadStage.CORESET, done, all_),
            )
            kept = rows.cpu().sort().values
            patches = patches[kept]
        normal = calibrate(pipeline, inputs, vectors, kept, progress)
        image_index, grid_index = kept.div(vectors.shape[1], rounding_mode="floor"), kept % vectors.shape[1]
        bank = MemoryBank(patches.numpy(), image_index.int().numpy(), grid_index.int().numpy(), normal.spacing, inputs)
        model = ReferenceModel(self.spec, pipeline.options, bank, normal.calibration)
        with self._prepared_lock:
            self._prepared[model] = _Prepared(
                replace(pipeline, searcher=self._answering),
                replace(
                    normal.index,
                    patches=self._tensor(bank.patches),  # the bank's own rows, so that they are in memory once
                    groups=None,
                    spacing=self._tensor(bank.spacing),
                ),
            )
        return model

    def _prepare(self, model: ReferenceModel) -> _Prepared:
        """The model ready for use: prepared once, freed with the model."""
        with self._prepared_lock:
            prepared = self._prepared.get(model)
            if prepared is None:
                self._require(model)
                pipeline = self._pipeline(model.options).for_reference(
                    model.bank.inputs, lambda _stage, _done, _all: None
                )
                bank = model.bank
                index = BankIndex.build(
                    self._tensor(bank.patches),
                    places=self._tensor(bank.grid_index),
                    spacing=self._tensor(bank.spacing),
                    approximate=model.options.approximate_search,
                )
                prepared = self._prepared[model] = _Prepared(pipeline, index)
            return prepared

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """On the device; on the CPU it shares the array's memory."""
        return torch.from_numpy(values).to(self._network.device)

    def _require(self, model: ReferenceModel) -> None:
        """Refuses a bank whose vectors mean something else than those of this detector."""
        bank, network = model.bank, self._network.spec
        places = max(network.patches_per_image, int(bank.grid_index.max()) + 1)
        theirs, ours = dataclasses.asdict(model.spec), dataclasses.asdict(self.spec)
        theirs["patches"] = f"{places} x {bank.patches.shape[1]} of {bank.inputs.shape[1]} px"
        ours["patches"] = f"{network.patches_per_image} x {network.feature_dim} of {network.input_size_px} px"
        differing = [name for name in ours if theirs[name] != ours[name]]
        if differing:
            raise BankMismatchError(
                "",
                "This reference was built with "
                + ", ".join(f"{name} {theirs[name]}" for name in differing)
                + ", but this server runs "
                + ", ".join(f"{name} {ours[name]}" for name in differing)
                + ". Load its images again, or start the server as it was.",
            )


def _detection(raw: RawScores, calibration: Calibration) -> Detection:
    return Detection(
        anomaly_map=raw.anomaly_map,
        damage=damage_score(raw.anomaly_map),
        anomaly=anomaly_score(
            raw.image_score, calibration.image_threshold, raw.anomaly_map, calibration.patch_threshold
        ),
    )
