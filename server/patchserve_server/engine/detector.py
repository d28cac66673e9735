"""PatchCore over one backbone: the engine's face to the layers above."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
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
from patchserve_server.engine.backbone.backbone import Backbone
from patchserve_server.engine.backbone.devices import synchronize
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.patchcore.calibration import calibrate
from patchserve_server.engine.patchcore.coreset import coreset_count, select_coreset
from patchserve_server.engine.patchcore.pipeline import Pipeline, RawScores
from patchserve_server.engine.patchcore.region_of_interest import region_mask_of
from patchserve_server.engine.patchcore.scoring import anomaly_score, damage_score
from patchserve_server.engine.search.exact import BankIndex
from patchserve_server.engine.search.ivf_index import IvfIndex
from patchserve_server.engine.search.parallel import ParallelSearch

_IMAGES_PER_PASS = 8  # bounds the memory of a forward pass


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    pipeline: Pipeline
    index: BankIndex


class PatchCoreDetector:
    """Implements `domain.ports.Detector`. Safe to use from several threads at once."""

    def __init__(self, backbone: Backbone, threads: int | None = None) -> None:
        """threads: how many search at once; None: as many as torch uses."""
        self._backbone = backbone
        self._threads = threads or torch.get_num_threads()
        searching = self._threads if backbone.device.type == "cpu" else 1
        self._answering, self._fitting = (
            ParallelSearch(searching),
            ParallelSearch(searching),
        )  # an answer waits for no fit
        self._prepared: WeakKeyDictionary[ReferenceModel, _Prepared] = WeakKeyDictionary()
        self._prepared_lock = threading.Lock()

    @property
    def info(self) -> DetectorInfo:
        backbone = self._backbone
        return DetectorInfo(
            backbone=backbone.spec.name,
            weights_digest=backbone.weights_digest,
            weights_source=backbone.weights_source,
            fallback_reason=backbone.fallback_reason,
            device=str(backbone.device),
            precision=backbone.precision,
            input_size_px=backbone.spec.input_size_px,
            feature_dim=backbone.spec.feature_dim,
            bytes_per_reference=backbone.bytes_per_reference,
        )

    @property
    def spec(self) -> EmbeddingSpec:
        backbone = self._backbone
        return EmbeddingSpec(
            backbone.spec.name, backbone.weights_digest, backbone.spec.preprocessing, backbone.precision
        )

    @torch.inference_mode()
    def warm_up(self) -> None:
        """One pass of a gray image, so that what is slow once is slow before the first caller waits for it."""
        size_px = self._backbone.spec.input_size_px
        inputs = np.full((1, size_px, size_px, 3), 128, np.uint8)
        if self._backbone.bytes_per_reference:
            return  # each reference has a network of its own, which `prepare` warms up
        pipeline = self._pipeline(ReferenceOptions(), self._backbone.runtime_for(inputs, _ignore_progress))
        patches = pipeline.patches(inputs)
        pipeline.score(patches, BankIndex(patches[0]))

    @torch.inference_mode()
    def fit(self, inputs: ModelInputs, options: ReferenceOptions, progress: Progress) -> ReferenceModel:
        coreset_count(len(inputs) * self._backbone.spec.patches_per_image, options.coreset)  # refuses before the work
        seen = self._seen(inputs, options)
        pipeline = self._fitting_pipeline(options, self._backbone.runtime_for(seen, progress))
        return self._model(pipeline, seen, pipeline.embed(seen, progress), progress)

    @torch.inference_mode()
    def extend(self, model: ReferenceModel, inputs: ModelInputs, progress: Progress) -> ReferenceModel:
        self._require(model)
        bank = model.bank
        together = np.concatenate((bank.inputs, self._seen(inputs, model.options)))
        pipeline = self._fitting_pipeline(model.options, self._backbone.runtime_for(together, progress))
        is_whole = len(bank.patches) == len(bank.inputs) * self._backbone.spec.patches_per_image
        if is_whole and not self._backbone.bytes_per_reference:
            # Every row is there, in the images' order: embedding these images again would give the same.
            new = pipeline.embed(inputs, progress)
            old = torch.from_numpy(bank.patches).view(len(bank.inputs), *new.shape[1:])
            vectors = torch.cat((old, new))
        else:
            vectors = pipeline.embed(together, progress)
        return self._model(pipeline, together, vectors, progress)

    @torch.inference_mode()
    def prepare(self, model: ReferenceModel) -> None:
        """Makes or finds what a reference has beside its stored form: its own network in int8, the lists of a bank."""
        self._prepare(model)
        if self._backbone.bytes_per_reference:  # warms the network up
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
            synchronize(self._backbone.device)
            embedded = time.perf_counter()
            detections += [_detection(raw, model.calibration) for raw in pipeline.score(patches, index)]
            embed_s += embedded - begun
            search_s += time.perf_counter() - embedded
        return detections, DetectionTimes(embed_ms=1000 * embed_s, search_ms=1000 * search_s)

    def _seen(self, inputs: ModelInputs, options: ReferenceOptions) -> ModelInputs:
        spec = self._backbone.spec
        mask = region_mask_of(options.region_of_interest, spec.input_size_px, spec.grid)
        return inputs if mask is None else mask.painted(inputs)

    def _pipeline(self, options: ReferenceOptions, runtime: Runtime) -> Pipeline:
        return Pipeline(self._backbone.spec, runtime, options, self._answering)

    def _fitting_pipeline(self, options: ReferenceOptions, runtime: Runtime) -> Pipeline:
        torch.set_num_threads(self._threads)  # torch has a number for each thread that calls it; a coreset wants all
        return Pipeline(self._backbone.spec, runtime, options, self._fitting)

    def _model(self, pipeline: Pipeline, inputs: ModelInputs, vectors: Tensor, progress: Progress) -> ReferenceModel:
        """The model of images (N, S, S, 3) and all their patch vectors (N, P, D)."""
        patches = vectors.flatten(0, 1)
        count = coreset_count(len(patches), pipeline.options.coreset)
        kept = torch.arange(len(patches))
        if count < len(patches):
            rows = select_coreset(
                patches.to(self._backbone.device),
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
            self._prepared[model] = self._ready(model, replace(pipeline, searcher=self._answering), normal.lists)
        return model

    def _prepare(self, model: ReferenceModel) -> _Prepared:
        """The model ready for use: prepared once, freed with the model."""
        with self._prepared_lock:
            prepared = self._prepared.get(model)
            if prepared is None:
                self._require(model)
                runtime = self._backbone.runtime_for(model.bank.inputs, _ignore_progress)
                pipeline = self._pipeline(model.options, runtime)
                lists = pipeline.lists(torch.from_numpy(model.bank.patches))
                prepared = self._prepared[model] = self._ready(model, pipeline, lists)
            return prepared

    def _ready(self, model: ReferenceModel, pipeline: Pipeline, lists: IvfIndex | None) -> _Prepared:
        device, bank = self._backbone.device, model.bank
        index = BankIndex(
            torch.from_numpy(bank.patches).to(device),
            places=torch.from_numpy(bank.grid_index).to(device),
            spacing=torch.from_numpy(bank.spacing).to(device),
            lists=lists,
        )
        return _Prepared(pipeline, index)

    def _require(self, model: ReferenceModel) -> None:
        """Refuses a bank whose vectors mean something else than those of this detector."""
        bank, network = model.bank, self._backbone.spec
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


def _ignore_progress(_stage: LoadStage, _done: int, _total: int) -> None:
    pass


def _detection(raw: RawScores, calibration: Calibration) -> Detection:
    return Detection(
        anomaly_map=raw.anomaly_map,
        damage=damage_score(raw.anomaly_map),
        anomaly=anomaly_score(
            raw.image_score, calibration.image_threshold, raw.anomaly_map, calibration.patch_threshold
        ),
    )
