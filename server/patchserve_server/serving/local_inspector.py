"""Inspects images on the threads of this process, with an engine that scores them in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from patchserve_server import imaging
from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.events import NOBODY, Events, ImageInspected, InspectionFailed, Origin
from patchserve_server.domain.images import AnomalyMap, RgbImage, SentImage
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import (
    EncodedOverlay,
    HeatmapScale,
    Inspection,
    OutputOptions,
    OverlayFormat,
    RawScores,
    Timing,
    Verdict,
)
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.reference import Calibration, ReferenceInfo
from patchserve_server.domain.work_events import ImageProcessed, Stage, StepLog, Wait
from patchserve_server.serving.batching import BatchedScores
from patchserve_server.serving.device_fallbacks import DeviceFallbacks
from patchserve_server.serving.engine_ports import Drawing, Drifts, ReferenceInUse, Scoring
from patchserve_server.serving.fairness import FairSemaphore, FlowKey
from patchserve_server.serving.local_imaging import JudgedImage, LocalImaging, PreparedImage
from patchserve_server.serving.outputs import Saver

OPERATORS_OVERLAY: Final = OutputOptions(
    overlay=True,
    heatmap_scale=HeatmapScale.CALIBRATED,
    overlay_format=OverlayFormat.JPEG,
    overlay_max_side_px=1280,
)
"""The overlay for whoever looks at inspections whose caller requested none."""
_BYTES_PER_TURN: Final = 6 * 2**20  # of a model input, or of a file on its way to a device

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Request(Generic[T]):
    """What a caller wants to know, and what becomes of it."""

    reference: ReferenceInUse
    image: SentImage
    options: OutputOptions
    flow: FlowKey
    answer: Callable[[Inspection], T]
    log: StepLog

    @property
    def info(self) -> ReferenceInfo:
        return self.reference.info

    @property
    def shape(self) -> InputShape:
        return self.info.input_shape

    @property
    def thresholds(self) -> Calibration:
        return self.info.thresholds(self.options.sensitivity)


@dataclass(frozen=True, slots=True, eq=False)
class _Inspected(Generic[T]):
    inspection: Inspection
    answer: T
    raw: RawScores
    small_image: Callable[[], RgbImage]  # (H, W, 3), for the thumbnail


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """What the device has made of the verdict."""

    judged: JudgedImage
    overlay: EncodedOverlay | None  # None: it cannot
    took_ms: float


class LocalInspector:
    """Decodes, judges and renders on a fixed pool of threads, or lets a device decode and draw; scores in batches.

    Images wait for their turn in encoded form and are decoded only then. So later queues stay short, and decoded images
    use little memory. If the caller leaves, work that has not begun is skipped.

    Args:
        scoring: scores them, in batches.
        images: the pool that decodes, judges and renders, with `threads` threads.
        turns: limits how many images are processed at once.
        threads: of the pool.
        limits: of images.
        max_overlay_bytes: the largest overlay that can be sent.
        default_scale: of overlays.
        outputs: saves inspections; None: nothing is saved.
        operators_overlay: how the overlay of an inspection is drawn for those who save or watch it.
        drifts: gets the score of every inspection.
        events: hears of every inspection.
        drawing: draws JPEG overlays on the device that decodes JPEG files; None: `scoring` takes no files.
    """

    def __init__(
        self,
        scoring: Scoring,
        images: Executor,
        turns: FairSemaphore,
        *,
        threads: int,
        limits: imaging.ImageLimits,
        max_overlay_bytes: int,
        default_scale: HeatmapScale,
        outputs: Saver | None,
        drifts: Drifts,
        events: Events = NOBODY,
        operators_overlay: OutputOptions = OPERATORS_OVERLAY,
        drawing: Drawing | None = None,
    ) -> None:
        self._scoring = scoring
        self._drawing = drawing
        self._images = images
        self._turns = turns
        self._pool_turns = FairSemaphore(threads + 1)  # one waits in the pool, so that no thread waits for the loop
        self._imaging = LocalImaging(
            limits,
            max_overlay_bytes=max_overlay_bytes,
            default_scale=default_scale,
            device_decodes=drawing is not None,
        )
        self._fallbacks = DeviceFallbacks()
        self._outputs = outputs
        self._drifts = drifts
        self._events = events
        self._operators_options = operators_overlay

    async def inspect(
        self, reference: ReferenceInUse, image: SentImage, options: OutputOptions, flow: FlowKey, *, name: str = ""
    ) -> Inspection:
        return await self.answer(reference, image, options, flow, answer=_unchanged, name=name)

    async def answer(
        self,
        reference: ReferenceInUse,
        image: SentImage,
        options: OutputOptions,
        flow: FlowKey,
        *,
        answer: Callable[[Inspection], T],
        name: str = "",
    ) -> T:
        origin = Origin(flow.client, name, flow.is_stream)
        image = image.with_default(reference.info.options.white_level)
        request = _Request(reference, image, options, flow, answer, StepLog())
        try:
            inspected = await self._in_turn(request)
        except Exception as error:
            self._tell_failure(origin, reference, error)
            raise
        self._drifts.add(reference.info.reference_id, reference.info.revision, inspected.raw.image_score)
        if self._outputs is None and not self._events.is_heard:
            return inspected.answer
        event = self._event(origin, reference.info, image, options, inspected)
        self._events.inspected(event)
        if self._outputs is not None:
            await self._outputs.save(event)
        return inspected.answer

    async def inspect_again(
        self, reference: ReferenceInUse, image: SentImage, options: OutputOptions, flow: FlowKey
    ) -> Inspection:
        image = image.with_default(reference.info.options.white_level)
        return (await self._in_turn(_Request(reference, image, options, flow, _unchanged, StepLog()))).answer

    async def draw(self, work: Callable[[], T], flow: FlowKey) -> T:
        async with self._turns.turn(flow):
            return await self._on_pool(flow, StepLog(), work)

    def _event(
        self, origin: Origin, info: ReferenceInfo, image: SentImage, options: OutputOptions, inspected: _Inspected[T]
    ) -> ImageInspected:
        raw, inspection = inspected.raw, inspected.inspection
        thresholds, operators_options = info.thresholds(options.sensitivity), self._operators_options

        def draw_overlay(own: SentImage) -> EncodedOverlay:
            return self._imaging.overlay_of(own, info.input_shape, raw, thresholds, operators_options)

        draw_thumbnail = partial(
            _draw_thumbnail,
            inspected.small_image,
            inspection.source_size_px,
            raw.anomaly_map,
            inspection.verdict,
        )
        map_bytes = raw.anomaly_map.nbytes
        return ImageInspected(origin, image, inspection, info.calibration, map_bytes, draw_overlay, draw_thumbnail)

    def _tell_failure(self, origin: Origin, reference: ReferenceInUse, error: Exception) -> None:
        if not self._events.is_heard:
            return
        reason, message = "INTERNAL", "Internal error; the server's log has details."
        if isinstance(error, PatchserveError):
            reason, message = error.reason, error.message
        self._events.failed(InspectionFailed(origin, reference.info.reference_id, reason, message))

    async def _in_turn(self, request: _Request[T]) -> _Inspected[T]:
        log, info = request.log, request.info
        log.enter(Wait.TURN)
        try:
            async with self._turns.turn(request.flow, self._turns_of(request)):
                return await self._inspect(request)
        finally:
            if self._events.is_heard:
                log.enter(None)
                steps = tuple(log.steps)
                self._events.processed(ImageProcessed(info.reference_id, request.flow.is_stream, steps))

    def _turns_of(self, request: _Request[T]) -> int:
        """How many turns an image counts as, so that images in progress need bounded memory, whatever their size."""
        nbytes = 3 * request.shape.pixels
        if self._drawing is not None:
            nbytes = max(nbytes, request.image.nbytes)  # a file for the device is a copy
        return max(1, -(-nbytes // _BYTES_PER_TURN))

    async def _inspect(self, request: _Request[T]) -> _Inspected[T]:
        prepared, scores = await self._score(request)
        times = scores.times
        request.log.end_batch(
            scores.queue_ms / 1000, times.embed_ms / 1000, times.search_ms / 1000, decode_s=times.decode_ms / 1000
        )
        drawn = None
        if isinstance(prepared.scored, JpegFile) and request.options.overlay and prepared.canvas is None:
            drawn = await self._draw(request, prepared.scored, scores.raw)
        return await self._on_pool(request.flow, request.log, partial(self._finish, request, prepared, scores, drawn))

    async def _score(self, request: _Request[T]) -> tuple[PreparedImage, BatchedScores]:
        try:
            return await self._score_as(self._imaging.prepare, request)
        except DeviceCodecError as error:
            self._fallbacks.add(error)
        return await self._score_as(self._imaging.decode, request)

    async def _score_as(
        self, prepare: Callable[[SentImage, InputShape, OutputOptions], PreparedImage], request: _Request[T]
    ) -> tuple[PreparedImage, BatchedScores]:
        log = request.log

        def decode() -> PreparedImage:
            log.enter(Stage.DECODE)
            prepared = prepare(request.image, request.shape, request.options)
            log.enter(None)
            return prepared

        prepared = await self._on_pool(request.flow, log, decode)
        log.enter(Wait.BATCH)
        return prepared, await self._scoring.score(request.reference, prepared.scored, request.flow)

    async def _draw(self, request: _Request[T], file: JpegFile, raw: RawScores) -> _Drawn:
        """Judges here, and lets the device draw and encode: all of it is one stage, with the wait for its batch."""
        if self._drawing is None:
            raise AssertionError("Files are scored only by a device that draws.")
        options = request.options

        def judge() -> tuple[float, JudgedImage, OverlayDrawing]:
            started_s = request.log.enter(Stage.RENDER)
            judged = self._imaging.judge(raw, request.thresholds, file.size_px, options)
            return started_s, judged, self._imaging.drawing(file, raw, judged, options)

        started_s, judged, drawing = await self._on_pool(request.flow, request.log, judge)
        overlay = None
        try:
            overlay = self._imaging.drawn(await self._drawing.draw(drawing, request.flow), drawing)
        except DeviceCodecError as error:
            self._fallbacks.add(error)
        return _Drawn(judged, overlay, _ms_since(started_s))

    def _finish(
        self, request: _Request[T], prepared: PreparedImage, scores: BatchedScores, drawn: _Drawn | None
    ) -> _Inspected[T]:
        info, options, log = request.info, request.options, request.log
        started_s = log.enter(Stage.RENDER)
        if drawn is None:
            judged, overlay = self._imaging.judge(scores.raw, request.thresholds, prepared.size_px, options), None
        else:
            judged, overlay = drawn.judged, drawn.overlay
        if prepared.canvas is not None:
            overlay = self._imaging.draw(prepared.canvas, scores.raw, judged, options, log)
        elif options.overlay and overlay is None:
            overlay = self._imaging.overlay_of(request.image, request.shape, scores.raw, request.thresholds, options)
        log.enter(Stage.ENCODE)
        inspection = Inspection(
            reference_id=info.reference_id,
            reference_revision=info.revision,
            verdict=judged.verdict,
            source_size_px=prepared.size_px,
            regions=judged.regions,
            overlay=overlay,
            score_map=scores.raw.anomaly_map if options.score_map else None,
            timing=Timing(
                queue_ms=1000 * log.waited_s,
                decode_ms=1000 * log.took_s(Stage.DECODE),
                embed_ms=scores.times.embed_ms,
                search_ms=scores.times.search_ms,
                render_ms=_ms_since(started_s) + (0.0 if drawn is None else drawn.took_ms),
                total_ms=_ms_since(log.began_at_s),
            ),
        )
        small_image = self._imaging.small_image(request.image, prepared)
        inspected = _Inspected(inspection, request.answer(inspection), scores.raw, small_image)
        log.enter(None)
        return inspected

    async def _on_pool(self, flow: FlowKey, log: StepLog, work: Callable[[], T]) -> T:
        """Does work that blocks, and enters its first step itself."""
        log.enter(Wait.THREAD)
        async with self._pool_turns.turn(flow):  # the pool itself works in the order of arrival
            return await asyncio.get_running_loop().run_in_executor(self._images, work)


def _draw_thumbnail(
    small_image: Callable[[], RgbImage], size_px: tuple[int, int], anomaly_map: AnomalyMap, verdict: Verdict
) -> bytes:
    return imaging.draw_thumbnail(small_image(), size_px, anomaly_map, verdict)


def _unchanged(inspection: Inspection) -> Inspection:
    return inspection


def _ms_since(start_s: float) -> float:
    return (time.perf_counter() - start_s) * 1000
