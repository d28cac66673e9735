"""One image in, one inspection out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from patchserve_server import imaging
from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.events import NOBODY, Events, ImageInspected, InspectionFailed, Origin
from patchserve_server.domain.images import ModelInputs, SentImage
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import (
    EncodedOverlay,
    HeatmapScale,
    Inspection,
    OutputOptions,
    OverlayFormat,
    RawScores,
    Region,
    Timing,
    Verdict,
)
from patchserve_server.domain.reference import Calibration, ReferenceInfo
from patchserve_server.domain.verdict import judge
from patchserve_server.domain.work_events import ImageProcessed, Stage, StepLog, Wait
from patchserve_server.serving.engine_ports import Drifts, ReferenceInUse, Scoring
from patchserve_server.serving.fairness import FairSemaphore, FlowKey
from patchserve_server.serving.outputs import Saver

OPERATORS_OVERLAY: Final = OutputOptions(
    overlay=True,
    heatmap_scale=HeatmapScale.CALIBRATED,
    overlay_format=OverlayFormat.JPEG,
    overlay_max_side_px=1280,
)
"""The overlay for whoever looks at inspections whose caller requested none."""
_PIXELS_PER_TURN: Final = 2 * 2**20  # 6 MiB of model input

T = TypeVar("T")


class Inspector(Protocol):
    """Inspects images, in this process or elsewhere."""

    async def inspect(
        self, reference: ReferenceInUse, image: SentImage, options: OutputOptions, flow: FlowKey, *, name: str = ""
    ) -> Inspection:
        """Compares one image with a reference, as soon as it is the flow's turn. The name is the caller's.

        Raises:
            InvalidImageError: it is not a supported image.
        """

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
        """The same; returns what `answer` makes of the inspection, on the thread that made it.

        Raises:
            The errors of `inspect`, and those of `answer`: the inspection has failed then.
        """

    async def inspect_again(
        self, reference: ReferenceInUse, image: SentImage, options: OutputOptions, flow: FlowKey
    ) -> Inspection:
        """The same as `inspect` for an image that was inspected before: it is neither saved nor told.

        Raises:
            The errors of `inspect`.
        """

    async def draw(self, work: Callable[[], T], flow: FlowKey) -> T:
        """Does other work on an image, which blocks, as soon as it is the flow's turn."""


@dataclass(frozen=True, slots=True, eq=False)
class _DecodedImage:
    model_input: ModelInputs  # (H, W, 3)
    size_px: tuple[int, int]  # (width, height)
    canvas: imaging.Canvas | None  # None: no overlay was requested


@dataclass(frozen=True, slots=True, eq=False)
class _JudgedImage:
    verdict: Verdict
    small_input: ModelInputs  # (H, W, 3), for the thumbnail
    regions: tuple[Region, ...]
    overlay: EncodedOverlay | None


@dataclass(frozen=True, slots=True, eq=False)
class _Inspected(Generic[T]):
    inspection: Inspection
    answer: T
    raw: RawScores
    small_input: ModelInputs  # (H, W, 3), for the thumbnail


class LocalInspector:
    """Decodes, judges and renders on a fixed pool of threads; scores in batches.

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
    ) -> None:
        self._scoring = scoring
        self._images = images
        self._turns = turns
        self._pool_turns = FairSemaphore(threads + 1)  # one waits in the pool, so that no thread waits for the loop
        self._limits = limits
        self._max_overlay_bytes = max_overlay_bytes
        self._default_scale = default_scale
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
        try:
            inspected = await self._in_turn(reference, image, options, flow, answer)
        except Exception as error:
            self._tell_failure(origin, reference, error)
            raise
        self._drifts.add(reference.info.reference_id, reference.info.revision, inspected.raw.image_score)
        if self._outputs is None and not self._events.is_heard:
            return inspected.answer
        inspection = inspected.inspection
        event = ImageInspected(
            origin,
            image,
            inspection,
            reference.info.calibration,
            inspected.raw.anomaly_map.nbytes,
            partial(self._operators_overlay, reference.info, inspected.raw, options.sensitivity),
            partial(
                imaging.draw_thumbnail,
                inspected.small_input,
                inspection.source_size_px,
                inspected.raw.anomaly_map,
                inspection.verdict,
            ),
        )
        self._events.inspected(event)
        if self._outputs is not None:
            await self._outputs.save(event)
        return inspected.answer

    async def inspect_again(
        self, reference: ReferenceInUse, image: SentImage, options: OutputOptions, flow: FlowKey
    ) -> Inspection:
        image = image.with_default(reference.info.options.white_level)
        return (await self._in_turn(reference, image, options, flow, _unchanged)).answer

    async def draw(self, work: Callable[[], T], flow: FlowKey) -> T:
        async with self._turns.turn(flow):
            return await self._on_pool(flow, StepLog(), work)

    def _tell_failure(self, origin: Origin, reference: ReferenceInUse, error: Exception) -> None:
        if not self._events.is_heard:
            return
        reason, message = "INTERNAL", "Internal error; the server's log has details."
        if isinstance(error, PatchserveError):
            reason, message = error.reason, error.message
        self._events.failed(InspectionFailed(origin, reference.info.reference_id, reason, message))

    async def _in_turn(
        self,
        reference: ReferenceInUse,
        image: SentImage,
        options: OutputOptions,
        flow: FlowKey,
        answer: Callable[[Inspection], T],
    ) -> _Inspected[T]:
        log = StepLog()
        log.enter(Wait.TURN)
        try:
            async with self._turns.turn(flow, _turns_of(reference.info.input_shape)):
                return await self._inspect(reference, image, options, flow, answer, log=log)
        finally:
            if self._events.is_heard:
                log.enter(None)
                steps = tuple(log.steps)
                self._events.processed(ImageProcessed(reference.info.reference_id, flow.is_stream, steps))

    async def _inspect(
        self,
        reference: ReferenceInUse,
        image: SentImage,
        options: OutputOptions,
        flow: FlowKey,
        answer: Callable[[Inspection], T],
        *,
        log: StepLog,
    ) -> _Inspected[T]:
        info = reference.info

        def decode() -> _DecodedImage:
            log.enter(Stage.DECODE)
            decoded = self._decode(image, info.input_shape, options)
            log.enter(None)
            return decoded

        decoded = await self._on_pool(flow, log, decode)
        log.enter(Wait.BATCH)
        scores = await self._scoring.score(reference, decoded.model_input, flow)
        log.end_batch(scores.queue_ms / 1000, scores.times.embed_ms / 1000, scores.times.search_ms / 1000)

        def finish() -> _Inspected[T]:
            started_at_s = log.enter(Stage.RENDER)
            judged = self._judge(decoded, scores.raw, info.thresholds(options.sensitivity), options, log)
            inspection = Inspection(
                reference_id=info.reference_id,
                reference_revision=info.revision,
                verdict=judged.verdict,
                source_size_px=decoded.size_px,
                regions=judged.regions,
                overlay=judged.overlay,
                score_map=scores.raw.anomaly_map if options.score_map else None,
                timing=Timing(
                    queue_ms=1000 * log.waited_s,
                    decode_ms=1000 * log.took_s(Stage.DECODE),
                    embed_ms=scores.times.embed_ms,
                    search_ms=scores.times.search_ms,
                    render_ms=_ms_since(started_at_s),
                    total_ms=_ms_since(log.began_at_s),
                ),
            )
            inspected = _Inspected(inspection, answer(inspection), scores.raw, judged.small_input)
            log.enter(None)
            return inspected

        return await self._on_pool(flow, log, finish)

    def _decode(self, image: SentImage, shape: InputShape, options: OutputOptions) -> _DecodedImage:
        pil_image = imaging.open_image(image, self._limits)
        canvas = self._canvas(pil_image, shape, options) if options.overlay else None
        return _DecodedImage(imaging.to_model_input(pil_image, shape), pil_image.size, canvas)

    def _canvas(self, image: imaging.PilImage, shape: InputShape, options: OutputOptions) -> imaging.Canvas:
        size_px = imaging.overlay_size(image.size, options.overlay_max_side_px)
        imaging.check_overlay_size(size_px, options.overlay_format)
        scale = options.heatmap_scale or self._default_scale
        canvas = imaging.prepare_canvas(image, scale, map_shape=shape.map_shape, size_px=size_px)
        imaging.check_overlay_bytes(canvas, options.overlay_format, self._max_overlay_bytes)
        return canvas

    def _judge(
        self, image: _DecodedImage, raw: RawScores, thresholds: Calibration, options: OutputOptions, log: StepLog
    ) -> _JudgedImage:
        verdict = judge(raw, thresholds)
        regions: tuple[Region, ...] = ()
        if options.max_regions:
            regions = imaging.find_regions(raw.anomaly_map, verdict, image.size_px, options.max_regions)
        # A thumbnail is drawn later. Until then nothing holds a large model input.
        small_input = imaging.shrink_for_thumbnail(image.model_input)
        overlay = None
        if image.canvas is not None:
            threshold = verdict.pixel_threshold
            pixels = imaging.render_overlay(image.canvas, raw.anomaly_map, pixel_threshold=threshold, regions=regions)
            log.enter(Stage.ENCODE)
            overlay = imaging.encode_overlay(pixels, options.overlay_format, self._max_overlay_bytes)
        log.enter(Stage.ENCODE)
        return _JudgedImage(verdict, small_input, regions, overlay)

    def _operators_overlay(
        self, info: ReferenceInfo, raw: RawScores, sensitivity: float | None, image: SentImage
    ) -> EncodedOverlay:
        """An overlay for whoever looks at the saved inspections, if the caller requested none. Blocks."""
        options = self._operators_options
        decoded = self._decode(image, info.input_shape, options)
        overlay = self._judge(decoded, raw, info.thresholds(sensitivity), options, StepLog()).overlay
        if overlay is None:
            raise AssertionError("It was requested.")
        return overlay

    async def _on_pool(self, flow: FlowKey, log: StepLog, work: Callable[[], T]) -> T:
        """Does work that blocks, and enters its first step itself."""
        log.enter(Wait.THREAD)
        async with self._pool_turns.turn(flow):  # the pool itself works in the order of arrival
            return await asyncio.get_running_loop().run_in_executor(self._images, work)


def _turns_of(shape: InputShape) -> int:
    """How many turns an image counts as, so that images in progress need bounded memory at any input shape."""
    return max(1, -(-shape.pixels // _PIXELS_PER_TURN))


def _unchanged(inspection: Inspection) -> Inspection:
    return inspection


def _ms_since(start_s: float) -> float:
    return (time.perf_counter() - start_s) * 1000
