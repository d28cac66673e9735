"""Inspects images on the threads of this process, with an engine that scores them in batches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final, TypeVar

from patchserve_server import imaging
from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.events import NOBODY, Events, ImageInspected, InspectionFailed, Origin
from patchserve_server.domain.images import AnomalyMap, RgbImage, SentImage
from patchserve_server.domain.inspection import (
    EncodedOverlay,
    HeatmapScale,
    Inspection,
    OutputOptions,
    OverlayFormat,
    Verdict,
)
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.work_events import ImageProcessed, StepLog, Wait
from patchserve_server.serving.engine_ports import Drawing, Drifts, ReferenceInUse, Scoring
from patchserve_server.serving.fairness import FairSemaphore, FlowKey
from patchserve_server.serving.image_pool import ImagePool
from patchserve_server.serving.image_steps import ImageSteps, InspectedImage, InspectionRequest
from patchserve_server.serving.local_imaging import LocalImaging
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
        self._device_decodes = drawing is not None
        self._pool = ImagePool(images, threads)
        self._turns = turns
        self._imaging = LocalImaging(
            limits,
            max_overlay_bytes=max_overlay_bytes,
            default_scale=default_scale,
            device_decodes=self._device_decodes,
        )
        self._steps = ImageSteps(scoring, drawing, self._pool, self._imaging, events)
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
        request = InspectionRequest(reference, image, options, flow, answer, StepLog())
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
        return (await self._in_turn(InspectionRequest(reference, image, options, flow, _unchanged, StepLog()))).answer

    async def draw(self, work: Callable[[], T], flow: FlowKey) -> T:
        async with self._turns.turn(flow):
            return await self._pool.run(flow, StepLog(), work)

    def _event(
        self,
        origin: Origin,
        info: ReferenceInfo,
        image: SentImage,
        options: OutputOptions,
        inspected: InspectedImage[T],
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

    async def _in_turn(self, request: InspectionRequest[T]) -> InspectedImage[T]:
        log, info = request.log, request.info
        log.enter(Wait.TURN)
        try:
            async with self._turns.turn(request.flow, self._turns_of(request)):
                return await self._steps.inspect(request)
        finally:
            if self._events.is_heard:
                log.enter(None)
                steps = tuple(log.steps)
                self._events.processed(ImageProcessed(info.reference_id, request.flow.is_stream, steps))

    def _turns_of(self, request: InspectionRequest[T]) -> int:
        """How many turns an image counts as, so that images in progress need bounded memory, whatever their size."""
        nbytes = 3 * request.shape.pixels
        if self._device_decodes:
            nbytes = max(nbytes, request.image.nbytes)  # a file for the device is a copy
        return max(1, -(-nbytes // _BYTES_PER_TURN))


def _draw_thumbnail(
    small_image: Callable[[], RgbImage], size_px: tuple[int, int], anomaly_map: AnomalyMap, verdict: Verdict
) -> bytes:
    return imaging.draw_thumbnail(small_image(), size_px, anomaly_map, verdict)


def _unchanged(inspection: Inspection) -> Inspection:
    return inspection
