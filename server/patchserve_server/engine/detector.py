"""PatchCore on one backbone: what the engine offers to the layers above."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import DEFAULT_SIDE_PX, InputShape
from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.ports import DetectorInfo, DeviceMemory, Progress, ScoredPart, Scorer, ScorerInputs
from patchserve_server.domain.reference import (
    Bank,
    Calibration,
    EmbeddingSpec,
    MemoryBank,
    ReferenceInfo,
    ReferenceModel,
)
from patchserve_server.domain.reference_options import ReferenceOptions, ReferenceViews, ScoringProfile
from patchserve_server.domain.subspace import Subspace
from patchserve_server.engine.backbone.backbone import Backbone
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.backbone.devices import device_errors, device_memory_at_start, memory_of
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.codec import Codec
from patchserve_server.engine.patchcore.bank_match import require_match
from patchserve_server.engine.patchcore.batch_scoring import Part, score_parts
from patchserve_server.engine.patchcore.calibration import calibrate
from patchserve_server.engine.patchcore.coreset import coreset_count, select_coreset
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.device_scoring import DevicePart, score_on_device, warm_up
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.reference_views import (
    View,
    may_have_views,
    spreads_no_more,
    takes_turned_views,
    views_of,
    with_views,
)
from patchserve_server.engine.patchcore.region_of_interest import RoiMask, build_roi_mask, cover_outside
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer, index_of
from patchserve_server.engine.patchcore.scoring import NOTEBOOK_NEIGHBORS
from patchserve_server.engine.patchcore.subspace_fit import SubspaceFit, subspace_fit_nbytes
from patchserve_server.engine.patchcore.tiles_of_region import int8_samples
from patchserve_server.engine.patchcore.tiling import Tiling
from patchserve_server.engine.search.bank_index import BankIndex, predict_nbytes
from patchserve_server.engine.search.device_search import DeviceIndex
from patchserve_server.engine.search.parallel import ParallelSearch, use_torch_threads
from patchserve_server.engine.search.search_choice import SearchChoice

_NEIGHBOR_BYTES = NOTEBOOK_NEIGHBORS * (4 + 8)  # distances and rows of a patch's neighbors in other images


class PatchCoreDetector:
    """Implements `domain.ports.Detector`. Safe to use from several threads at once."""

    def __init__(self, backbone: Backbone, search: SearchChoice | None = None, codec: Codec | None = None) -> None:
        """`search`: None: in fp32, with as many threads as torch uses. `codec`: of the device, if it decodes files."""
        self._backbone = backbone
        self._codec = codec
        self._threads = torch.get_num_threads()
        default = SearchChoice(threads=self._threads if backbone.device.type == "cpu" else 1)
        self._search = search or default
        # Two pools, so that a request does not wait for a fit.
        self._scoring_search, self._fitting_search = (
            ParallelSearch(self._search.threads, product=self._search.product) for _ in range(2)
        )

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
            input_size_px=DEFAULT_SIDE_PX,
            input_step_px=backbone.spec.step_px,
            feature_dim=backbone.spec.feature_dim,
            search_product=self._search.product.value,
            search_threads=self._search.threads,
            decode="cpu" if self._codec is None else "device",
        )

    def device_memory(self) -> DeviceMemory | None:
        return memory_of(self._backbone.device)

    def spec_of(self, shape: InputShape) -> EmbeddingSpec:
        backbone = self._backbone
        preprocessing = backbone.spec.preprocessing_of(shape)
        return EmbeddingSpec(backbone.spec.name, backbone.weights_digest, preprocessing, backbone.precision)

    def input_shape(self, options: ReferenceOptions, size_px: tuple[int, int]) -> InputShape:
        step_px = self._backbone.spec.step_px
        return options.input.shape_for(size_px, step_px=step_px, default_side_px=options.profile.default_side_px)

    @device_memory_at_start()
    @torch.inference_mode()
    def warm_up(self) -> None:
        """Runs one gray image through backbone and search, because their first run is slow; and so is the codec's.

        On a GPU all passes for images of the usual size are captured: no call waits for that later.

        Raises:
            StartupError: the device has too little memory, or cannot decode.
        """
        if self._codec is not None:
            self._codec.warm_up()
        if self._backbone.bytes_per_reference(InputShape.square()):
            return  # each reference has its own network, which `open` warms up
        shape = InputShape.square()
        inputs = np.full((1, *shape.sides_px, 3), 128, np.uint8)
        runtime = self._backbone.runtime_for(inputs, _ignore_progress)
        pipeline = Pipeline.build(self._backbone.spec, runtime, shape, ReferenceOptions(), self._scoring_search)
        if isinstance(runtime, DeviceRuntime):
            runtime.warm_up(pipeline.tiling.tile_shape, pipeline.tiles_per_pass)
        patches = pipeline.embed(inputs)
        pipeline.score(patches, BankIndex.build(patches[0], product=self._search.product))

    def fit_nbytes(self, shape: InputShape, options: ReferenceOptions, image_count: int) -> int:
        spec, device = self._backbone.spec, self._backbone.device
        turned = takes_turned_views(options, images=image_count)
        views = len(views_of(turned=turned, scales=options.scales, is_square=shape.height_px == shape.width_px))
        copies = 3 if options.region_of_interest else 2  # while they are joined, and covered outside the region
        inputs = 3 * shape.pixels * image_count * (copies + views - 1)
        inputs += self._own_runtime_nbytes(shape, options) + self.shared_nbytes(shape, options)
        if options.profile is ScoringProfile.SUBSPACE:
            return inputs + subspace_fit_nbytes(spec.feature_dim)
        rows = image_count * views * spec.patches_of(shape)
        vectors = 4 * rows * spec.feature_dim
        index = predict_nbytes(
            rows,
            spec.feature_dim,
            device,
            approximate=options.approximate_search,
            values_per_row=2,
            product=self._search.product,
        )
        shared = vectors if device.type == "cpu" else 0
        kept = coreset_count(rows, options.coreset)
        selected = 4 * kept * spec.feature_dim if kept < rows else 0
        copied = DeviceIndex.predict_nbytes(kept, spec.feature_dim) if self._backbone.has_device_runtime else 0
        return inputs + vectors + index - shared + selected + copied + rows * _NEIGHBOR_BYTES

    @torch.inference_mode()
    def fit(self, inputs: ModelInputs, options: ReferenceOptions, progress: Progress) -> Scorer:
        with device_errors(self._backbone.device):
            roi_mask = self._roi_mask(options, _shape_of(inputs))
            masked = cover_outside(roi_mask, inputs)
            pipeline = self._fitting_pipeline(masked, options, roi_mask, progress)
            return self._fit(pipeline, masked, progress)

    @torch.inference_mode()
    def extend(self, base: Scorer, inputs: ModelInputs, progress: Progress) -> Scorer:
        with device_errors(self._backbone.device):
            bank, options = base.model.bank, base.model.options
            roi_mask = self._roi_mask(options, bank.input_shape)
            new = cover_outside(roi_mask, inputs)
            masked = np.concatenate((bank.inputs, new))
            pipeline = self._fitting_pipeline(masked, options, roi_mask, progress)
            if isinstance(bank, Subspace) or may_have_views(options) or pipeline.runtime.nbytes:
                return self._fit(pipeline, masked, progress)
            if len(bank.patches) != len(bank.inputs) * self._backbone.spec.patches_of(bank.input_shape):
                return self._fit(pipeline, masked, progress)  # of a coreset
            # The bank has all rows of the old images in order. Embedding these images again would give the same rows.
            new_vectors = pipeline.embed_each(new, progress)
            old_vectors = torch.from_numpy(bank.patches).view(len(bank.inputs), *new_vectors.shape[1:])
            return self._build(pipeline, masked, torch.cat((old_vectors, new_vectors)), progress)

    @torch.inference_mode()
    def open(self, model: ReferenceModel) -> Scorer:
        with device_errors(self._backbone.device):
            require_match(model, self.spec_of(model.bank.input_shape), self._backbone.spec)
            device, bank, options = self._backbone.device, model.bank, model.options
            roi_mask, spec = self._roi_mask(options, bank.input_shape), self._backbone.spec
            runtime = self._runtime_for(bank.inputs, options, roi_mask, _ignore_progress)
            index = index_of(bank, device, approximate=options.approximate_search, product=self._search.product)
            pipeline = Pipeline.build(spec, runtime, bank.input_shape, options, self._scoring_search, roi_mask=roi_mask)
            scorer = self._scorer(model, pipeline, index)
            if runtime.nbytes:
                scorer.score(bank.inputs[:1])  # the first run of a network is slow
            return scorer

    def open_nbytes(self, info: ReferenceInfo) -> int:
        device = self._backbone.device
        vectors_nbytes = index_nbytes = 4 * info.patch_count * info.feature_dim
        if info.options.profile is not ScoringProfile.SUBSPACE:
            index_nbytes = predict_nbytes(
                info.patch_count,
                info.feature_dim,
                device,
                approximate=info.options.approximate_search,
                values_per_row=2,  # places and spacing
                product=self._search.product,
            )
        shared = vectors_nbytes if device.type == "cpu" else 0
        patches = self._backbone.spec.patches_of(info.input_shape)
        masks = RoiMask.predict_nbytes(info.input_shape, patches) if info.options.region_of_interest else 0
        runtime = self._own_runtime_nbytes(info.input_shape, info.options)
        grid = self._backbone.spec.grid_of(info.input_shape)
        plan = DevicePlan.predict_nbytes(info, grid) if self._backbone.has_device_runtime else 0
        return info.bank_bytes - shared + index_nbytes + masks + runtime + plan

    def shared_nbytes(self, shape: InputShape, options: ReferenceOptions) -> int:
        return self._backbone.shared_bytes(self._seen_shape(shape, options))

    def _own_runtime_nbytes(self, shape: InputShape, options: ReferenceOptions) -> int:
        """The memory of a reference's own runtime; 0 if references share one."""
        return self._backbone.bytes_per_reference(self._seen_shape(shape, options))

    def _seen_shape(self, shape: InputShape, options: ReferenceOptions) -> InputShape:
        """The shape of what the network sees: tiles, if there are any."""
        return Tiling.of(shape, options.input, self._backbone.spec).tile_shape

    def score_batch(self, batch: Sequence[tuple[Scorer, ScorerInputs]]) -> Iterator[ScoredPart]:
        parts, on_device = list[Part](), list[DevicePart]()
        for number, (scorer, inputs) in enumerate(batch):
            if not isinstance(scorer, PatchCoreScorer):
                raise TypeError(f"This detector did not open {scorer}.")
            if scorer.plan is None:
                parts.append(Part(number, scorer.pipeline, scorer.index, inputs))
            else:
                on_device.append(DevicePart(number, scorer.pipeline, scorer.index, inputs, plan=scorer.plan))
        return score_on_device(on_device, self._codec) if on_device else score_parts(parts)

    def draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        if self._codec is None:
            raise TypeError("This detector draws no overlays.")
        return self._codec.draw(drawings)

    def _roi_mask(self, options: ReferenceOptions, shape: InputShape) -> RoiMask | None:
        return build_roi_mask(options.region_of_interest, shape, self._backbone.spec.grid_of(shape))

    def _fitting_pipeline(
        self, masked: ModelInputs, options: ReferenceOptions, roi_mask: RoiMask | None, progress: Progress
    ) -> Pipeline:
        use_torch_threads(self._threads)  # a setting of the calling thread; a coreset uses all threads
        runtime, shape = self._runtime_for(masked, options, roi_mask, progress), _shape_of(masked)
        return Pipeline.build(self._backbone.spec, runtime, shape, options, self._fitting_search, roi_mask=roi_mask)

    def _runtime_for(
        self, masked: ModelInputs, options: ReferenceOptions, roi_mask: RoiMask | None, progress: Progress
    ) -> Runtime:
        """The runtime for what the network sees of masked inputs (N, H, W, 3): these images, or tiles of them."""
        tiling = Tiling.of(_shape_of(masked), options.input, self._backbone.spec)
        return self._backbone.runtime_for(int8_samples(tiling, masked, roi_mask), progress)

    def _fit(self, pipeline: Pipeline, masked: ModelInputs, progress: Progress) -> Scorer:
        """The scorer of masked inputs (N, H, W, 3), with their views if the options say so."""
        options, is_square = pipeline.options, masked.shape[1] == masked.shape[2]
        turned = takes_turned_views(options, images=len(masked))
        views = views_of(turned=turned, scales=options.scales, is_square=is_square)
        keeps_vectors = options.profile is not ScoringProfile.SUBSPACE
        vectors = pipeline.embed_each(with_views(masked, views), progress) if keeps_vectors else None  # (N * V, P, D)

        def build(chosen: Sequence[View]) -> Scorer:
            if vectors is None:
                return self._build_subspace(pipeline, masked, chosen, progress)
            if len(chosen) == len(views):
                return self._build(pipeline, masked, vectors, progress)
            by_image = vectors.view(len(masked), len(views), *vectors.shape[1:])
            of_chosen = by_image[:, [views.index(view) for view in chosen]]
            return self._build(pipeline, masked, of_chosen.flatten(0, 1), progress)

        built = build(views)
        if not turned or options.views is not ReferenceViews.AUTO:
            return built
        without = build(views_of(turned=False, scales=options.scales, is_square=is_square))
        return built if spreads_no_more(built.model.calibration, without.model.calibration) else without

    def _build(self, pipeline: Pipeline, masked: ModelInputs, vectors: Tensor, progress: Progress) -> Scorer:
        """The scorer of masked inputs (N, H, W, 3) and the patch vectors (N * V, P, D) of all their views."""
        selected = self._select(vectors.flatten(0, 1), pipeline.options, progress)
        calibrated = calibrate(pipeline, masked, vectors, selected, progress)
        index, device = calibrated.index, self._backbone.device
        spacing = torch.ones(len(index)) if index.spacing is None else index.spacing.cpu()
        positions, views = vectors.shape[1], len(vectors) // len(masked)
        bank = MemoryBank(
            patches=index.patches.cpu().numpy(),
            image_index=selected.div(positions * views, rounding_mode="floor").int().numpy(),
            grid_index=(selected % positions).int().numpy(),
            spacing=spacing.numpy(),
            inputs=masked,
        )
        model = self._model(pipeline, bank, calibrated.calibration, views)
        index = replace(
            index,
            groups=None,
            places=torch.from_numpy(bank.grid_index).to(device),
            spacing=torch.from_numpy(bank.spacing).to(device),
        )
        return self._scorer(model, replace(pipeline, parallel_search=self._scoring_search), index)

    def _build_subspace(
        self, pipeline: Pipeline, masked: ModelInputs, views: Sequence[View], progress: Progress
    ) -> Scorer:
        """The scorer of masked inputs (N, H, W, 3) and their views with the SUBSPACE profile."""
        fit = SubspaceFit.of(pipeline, masked, views, progress)
        subspace = PatchSubspace.fit(fit.sums)
        calibration = fit.calibrate(subspace, progress)
        bank = Subspace(subspace.mean.cpu().numpy(), subspace.basis.cpu().numpy(), masked)
        model = self._model(pipeline, bank, calibration, len(views))
        return self._scorer(model, replace(pipeline, parallel_search=self._scoring_search), subspace)

    def _model(self, pipeline: Pipeline, bank: Bank, calibration: Calibration, views: int) -> ReferenceModel:
        spec = self.spec_of(pipeline.shape)
        return ReferenceModel(spec, pipeline.options, bank, calibration, views_per_image=views)

    def _select(self, patches: Tensor, options: ReferenceOptions, progress: Progress) -> Tensor:
        """The rows (K,) int64 of patches (P, D) that the bank keeps, ascending."""
        count = coreset_count(len(patches), options.coreset)
        if count == len(patches):
            return torch.arange(count)
        rows = select_coreset(
            patches.to(self._backbone.device),
            count,
            progress=lambda done, total: progress(LoadStage.CORESET, done, total),
        )
        return rows.cpu().sort().values

    def _scorer(self, model: ReferenceModel, pipeline: Pipeline, index: BankIndex | PatchSubspace) -> PatchCoreScorer:
        bank = model.bank
        # On the CPU, the index uses the bank's own vectors.
        shared = 4 * bank.vector_count * bank.feature_dim if self._backbone.device.type == "cpu" else 0
        nbytes = bank.nbytes - shared + index.nbytes + pipeline.nbytes + pipeline.runtime.nbytes
        if not self._backbone.has_device_runtime:
            return PatchCoreScorer(model, pipeline, index, nbytes)
        plan = DevicePlan.build(pipeline, index)
        warm_up(plan, index)  # no request meets a shape or a number of images that is new to the device
        return PatchCoreScorer(model, pipeline, index, nbytes + plan.nbytes, plan)


def _shape_of(inputs: ModelInputs) -> InputShape:
    return InputShape(*inputs.shape[1:3])


def _ignore_progress(_stage: LoadStage, _done: int, _total: int) -> None:
    pass
