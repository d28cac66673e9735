"""One image in, one inspection out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeAlias, TypeVar

from patchserve_server import imaging
from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.images import AnomalyMap, ModelInputs, SentImage
from patchserve_server.domain.inspection import (
    Detection,
    EncodedOverlay,
    HeatmapScale,
    Inspection,
    OutputOptions,
    Region,
    Timing,
)
from patchserve_server.domain.reference import Calibration, Reference
from patchserve_server.engine.patchcore.scoring import anomaly_score
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.fairness import FairSemaphore, FlowKey

T = TypeVar("T")


class Inspector(Protocol):
    """Where inference happens is the inspector's secret: here it is in this process."""

    async def inspect(
        self, reference: Reference, image: SentImage, options: OutputOptions, flow: FlowKey
    ) -> Inspection:
        """Compares one encoded image with a reference, when it is the flow's turn.

        Raises:
            InvalidImageError: it is no image that we take.
            BankMismatchError: the reference was made by another backbone, other weights or another precision.
        """


class OutputSink(Protocol):
    """Keeps overlays for the operator (`--save-outputs`). Called from a worker thread; never raises."""

    def keep(self, inspection: Inspection, overlay: EncodedOverlay) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    model_input: ModelInputs  # (S, S, 3)
    size_px: tuple[int, int]  # (width, height)
    canvas: imaging.Canvas | None  # None: no overlay was asked for


_Drawn: TypeAlias = tuple[tuple[Region, ...], EncodedOverlay | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Timed(Generic[T]):
    value: T
    waited_ms: float
    took_ms: float


class LocalInspector:
    """Decoding and rendering on a fixed pool of threads, the detector behind the batcher.

    Images wait for their turn as they came, encoded. Only those whose turn it is are decoded, so that the queues
    behind stay short and what is decoded takes little memory. What has not begun when its caller leaves is not done.
    """

    def __init__(
        self,
        batcher: Batcher,
        images: Executor,
        turns: FairSemaphore,
        *,
        input_size_px: int,
        limits: imaging.ImageLimits,
        default_scale: HeatmapScale,
        sink: OutputSink | None,
    ) -> None:
        self._batcher = batcher
        self._images = images
        self._turns = turns
        self._input_size_px = input_size_px
        self._limits = limits
        self._default_scale = default_scale
        self._sink = sink

    async def inspect(
        self, reference: Reference, image: SentImage, options: OutputOptions, flow: FlowKey
    ) -> Inspection:
        arrived = time.perf_counter()
        async with self._turns.turn(flow):
            return await self._inspect(reference, image, options, arrived)

    async def _inspect(
        self, reference: Reference, image: SentImage, options: OutputOptions, arrived: float
    ) -> Inspection:
        waited_ms = (time.perf_counter() - arrived) * 1000
        prepared = await self._on_pool(lambda: self._prepare(image, options))
        try:
            detected = await self._batcher.detect(reference.model, prepared.value.model_input)
        except BankMismatchError as error:
            raise error.of(reference.reference_id) from error
        calibration = reference.model.calibration.at(options.sensitivity)
        detection = detected.detection
        if options.sensitivity != 1:
            detection = _judged(detection, calibration)
        drawn: _Timed[_Drawn] = _Timed(((), None), 0.0, 0.0)
        if options.overlay or options.max_regions:
            drawn = await self._on_pool(
                lambda: self._draw(prepared.value, detection.anomaly_map, calibration.patch_threshold, options)
            )
        regions, overlay = drawn.value
        inspection = Inspection(
            reference_id=reference.reference_id,
            reference_revision=reference.revision,
            detection=detection,
            source_size_px=prepared.value.size_px,
            regions=regions,
            overlay=overlay,
            score_map=detection.anomaly_map if options.score_map else None,
            timing=Timing(
                queue_ms=waited_ms + prepared.waited_ms + detected.queue_ms + drawn.waited_ms,
                decode_ms=prepared.took_ms,
                embed_ms=detected.times.embed_ms,
                search_ms=detected.times.search_ms,
                render_ms=drawn.took_ms,
                total_ms=(time.perf_counter() - arrived) * 1000,
            ),
        )
        if (sink := self._sink) is not None and overlay is not None:
            await self._on_pool(lambda: sink.keep(inspection, overlay))
        return inspection

    def _prepare(self, image: SentImage, options: OutputOptions) -> _Prepared:
        opened = imaging.opened(image, self._limits)
        canvas = self._canvas(opened, options) if options.overlay else None
        return _Prepared(imaging.to_model_input(opened, self._input_size_px), opened.size, canvas)

    def _canvas(self, image: imaging.PilImage, options: OutputOptions) -> imaging.Canvas:
        size_px = imaging.overlay_size(image.size, options.overlay_max_side_px)
        imaging.check_overlay_size(size_px, options.overlay_format)
        scale = options.heatmap_scale or self._default_scale
        return imaging.prepare_canvas(image, scale, map_side_px=self._input_size_px, size_px=size_px)

    def _draw(
        self, prepared: _Prepared, anomaly_map: AnomalyMap, patch_threshold: float, options: OutputOptions
    ) -> _Drawn:
        regions: tuple[Region, ...] = ()
        if options.max_regions:
            regions = imaging.find_regions(anomaly_map, patch_threshold, prepared.size_px, options.max_regions)
        if prepared.canvas is None:
            return regions, None
        overlay = imaging.render_overlay(prepared.canvas, anomaly_map, patch_threshold=patch_threshold, regions=regions)
        return regions, imaging.encode_overlay(overlay, options.overlay_format)

    async def _on_pool(self, work: Callable[[], T]) -> _Timed[T]:
        submitted = time.perf_counter()

        def timed() -> _Timed[T]:
            started = time.perf_counter()
            value = work()
            return _Timed(value, (started - submitted) * 1000, (time.perf_counter() - started) * 1000)

        return await asyncio.get_running_loop().run_in_executor(self._images, timed)


def _judged(detection: Detection, calibration: Calibration) -> Detection:
    """The same distances under other thresholds."""
    raw_score, anomaly_map = detection.anomaly.raw_score, detection.anomaly_map
    anomaly = anomaly_score(raw_score, calibration.image_threshold, anomaly_map, calibration.patch_threshold)
    return replace(detection, anomaly=anomaly)
