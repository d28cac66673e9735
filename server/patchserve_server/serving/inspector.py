"""One picture in, one inspection out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from patchserve_server import imaging
from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.images import AnomalyMap, ModelInputs, RgbImage
from patchserve_server.domain.inspection import (
    Detection,
    HeatmapScale,
    Inspection,
    OutputOptions,
    Region,
    Timing,
)
from patchserve_server.domain.reference import Calibration, Reference
from patchserve_server.engine.scoring import anomaly_score
from patchserve_server.serving.batching import Batcher

T = TypeVar("T")


class Inspector(Protocol):
    """Where inference happens is the inspector's secret: here it is in this process."""

    async def inspect(self, reference: Reference, image: bytes, options: OutputOptions) -> Inspection:
        """Compares one encoded picture with a reference.

        Raises:
            InvalidImageError: it is no picture that we take.
            BankMismatchError: the reference was made by another backbone, other weights or another precision.
        """


class OutputSink(Protocol):
    """Keeps overlays for the operator (`--save-outputs`). Called from a worker thread; never raises."""

    def keep(self, inspection: Inspection) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    model_input: ModelInputs  # (S, S, 3)
    size_px: tuple[int, int]  # (width, height)
    image: RgbImage | None  # kept only where an overlay is drawn over it: it may be large


@dataclass(frozen=True, slots=True, eq=False)
class _Timed(Generic[T]):
    value: T
    waited_ms: float
    took_ms: float


class LocalInspector:
    """Decoding and rendering on a fixed pool of threads, the detector behind the batcher."""

    def __init__(
        self,
        batcher: Batcher,
        pictures: Executor,
        *,
        input_size_px: int,
        limits: imaging.ImageLimits,
        default_scale: HeatmapScale,
        sink: OutputSink | None,
    ) -> None:
        self._batcher = batcher
        self._pictures = pictures
        self._input_size_px = input_size_px
        self._limits = limits
        self._default_scale = default_scale
        self._sink = sink

    async def inspect(self, reference: Reference, image: bytes, options: OutputOptions) -> Inspection:
        arrived = time.perf_counter()
        prepared = await self._on_pool(lambda: self._prepare(image, keep_image=options.overlay))
        try:
            detected = await self._batcher.detect(reference.model, prepared.value.model_input)
        except BankMismatchError as error:
            raise error.of(reference.reference_id) from error
        calibration = reference.model.calibration.at(options.sensitivity)
        detection = detected.detection
        if options.sensitivity != 1:
            detection = _judged(detection, calibration)
        drawn = await self._on_pool(
            lambda: self._draw(prepared.value, detection.anomaly_map, calibration.patch_threshold, options)
        )
        regions, overlay_png = drawn.value
        inspection = Inspection(
            reference_id=reference.reference_id,
            reference_revision=reference.revision,
            detection=detection,
            source_size_px=prepared.value.size_px,
            regions=regions,
            overlay_png=overlay_png,
            score_map=detection.anomaly_map if options.score_map else None,
            timing=Timing(
                queue_ms=prepared.waited_ms + detected.queue_ms + drawn.waited_ms,
                decode_ms=prepared.took_ms,
                embed_ms=detected.times.embed_ms,
                search_ms=detected.times.search_ms,
                render_ms=drawn.took_ms,
                total_ms=(time.perf_counter() - arrived) * 1000,
            ),
        )
        if (sink := self._sink) is not None and overlay_png:
            await self._on_pool(lambda: sink.keep(inspection))
        return inspection

    def _prepare(self, data: bytes, *, keep_image: bool) -> _Prepared:
        image = imaging.decode_rgb(data, self._limits)
        height, width = image.shape[:2]
        model_input = imaging.to_model_input(image, self._input_size_px)
        return _Prepared(model_input, (width, height), image if keep_image else None)

    def _draw(
        self, prepared: _Prepared, anomaly_map: AnomalyMap, patch_threshold: float, options: OutputOptions
    ) -> tuple[tuple[Region, ...], bytes]:
        regions: tuple[Region, ...] = ()
        if options.max_regions:
            regions = imaging.find_regions(anomaly_map, patch_threshold, prepared.size_px, options.max_regions)
        if prepared.image is None:
            return regions, b""
        overlay = imaging.render_overlay(
            prepared.image,
            anomaly_map,
            scale=options.heatmap_scale or self._default_scale,
            patch_threshold=patch_threshold,
            regions=regions,
        )
        return regions, imaging.encode_png(overlay)

    async def _on_pool(self, work: Callable[[], T]) -> _Timed[T]:
        submitted = time.perf_counter()

        def timed() -> _Timed[T]:
            started = time.perf_counter()
            value = work()
            return _Timed(value, (started - submitted) * 1000, (time.perf_counter() - started) * 1000)

        return await asyncio.get_running_loop().run_in_executor(self._pictures, timed)


def _judged(detection: Detection, calibration: Calibration) -> Detection:
    """The same distances under other thresholds."""
    raw_score, anomaly_map = detection.anomaly.raw_score, detection.anomaly_map
    anomaly = anomaly_score(raw_score, calibration.image_threshold, anomaly_map, calibration.patch_threshold)
    return replace(detection, anomaly=anomaly)
