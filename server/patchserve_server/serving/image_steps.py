"""The steps of one image: it is decoded, scored, judged and drawn, here or by the engine's device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from patchserve_server.domain.errors import EngineLostError, ResponseTooLargeError
from patchserve_server.domain.events import Events
from patchserve_server.domain.images import RgbImage, SentImage
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import EncodedOverlay, Inspection, OutputOptions, RawScores, Timing
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.reference import Calibration, ReferenceInfo
from patchserve_server.domain.work_events import Stage, StepLog, Wait
from patchserve_server.serving.batching import BatchedScores
from patchserve_server.serving.device_fallbacks import DeviceFallbacks
from patchserve_server.serving.engine_ports import Drawing, ReferenceInUse, Scoring
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.image_pool import ImagePool
from patchserve_server.serving.local_imaging import JudgedImage, LocalImaging, PreparedImage

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class InspectionRequest(Generic[T]):
    """An image, and what a caller wants to know of it."""

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
class InspectedImage(Generic[T]):
    """What became of it, and what may be drawn of it later."""

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


class ImageSteps:
    """Does the steps of an image whose turn it is.

    Args:
        scoring: scores it, in a batch.
        drawing: draws JPEG overlays on the device that decodes JPEG files; None: `scoring` takes no files.
        pool: does what this process does.
        local: what that is.
        events: hears what the CPU does because the device could not.
    """

    def __init__(
        self, scoring: Scoring, drawing: Drawing | None, pool: ImagePool, local: LocalImaging, events: Events
    ) -> None:
        self._scoring = scoring
        self._drawing = drawing
        self._pool = pool
        self._local = local
        self._fallbacks = DeviceFallbacks(events)

    async def inspect(self, request: InspectionRequest[T]) -> InspectedImage[T]:
        """All of them.

        Raises:
            InvalidImageError, ResponseTooLargeError: as `Inspector.inspect`.
        """
        prepared, scores = await self._score(request)
        times = scores.times
        request.log.end_batch(
            scores.queue_ms / 1000, times.embed_ms / 1000, times.search_ms / 1000, decode_s=times.decode_ms / 1000
        )
        drawn = None
        if isinstance(prepared.scored, JpegFile) and request.options.overlay and prepared.canvas is None:
            drawn = await self._draw(request, prepared.scored, scores.raw)
        return await self._pool.run(request.flow, request.log, partial(self._finish, request, prepared, scores, drawn))

    async def _score(self, request: InspectionRequest[T]) -> tuple[PreparedImage, BatchedScores]:
        try:
            return await self._score_as(self._local.prepare, request)
        except DeviceCodecError as error:
            self._fallbacks.add(Stage.DECODE, error)
        return await self._score_as(self._local.decode, request)

    async def _score_as(
        self, prepare: Callable[[SentImage, InputShape, OutputOptions], PreparedImage], request: InspectionRequest[T]
    ) -> tuple[PreparedImage, BatchedScores]:
        log = request.log

        def decode() -> PreparedImage:
            log.enter(Stage.DECODE)
            prepared = prepare(request.image, request.shape, request.options)
            log.enter(None)
            return prepared

        prepared = await self._pool.run(request.flow, log, decode)
        log.enter(Wait.BATCH)
        return prepared, await self._scoring.score(request.reference, prepared.scored, request.flow)

    async def _draw(self, request: InspectionRequest[T], file: JpegFile, raw: RawScores) -> _Drawn:
        """Judges here, and lets the device draw and encode: all of it is one stage, with the wait for its batch."""
        if self._drawing is None:
            raise AssertionError("Files are scored only by a device that draws.")
        options = request.options

        def judge() -> tuple[float, JudgedImage, OverlayDrawing]:
            started_s = request.log.enter(Stage.RENDER)
            judged = self._local.judge(raw, request.thresholds, file.size_px, options)
            return started_s, judged, self._local.drawing(file, raw, judged, options)

        started_s, judged, drawing = await self._pool.run(request.flow, request.log, judge)
        overlay = None
        try:
            overlay = self._local.drawn(await self._drawing.draw(drawing, request.flow), drawing)
        except (DeviceCodecError, EngineLostError) as error:  # the scores are here, and all that the CPU needs
            self._fallbacks.add(Stage.RENDER, error)
        except ResponseTooLargeError:
            pass  # that of the CPU has fewer bytes: with a quarter of the color
        return _Drawn(judged, overlay, _ms_since(started_s))

    def _finish(
        self, request: InspectionRequest[T], prepared: PreparedImage, scores: BatchedScores, drawn: _Drawn | None
    ) -> InspectedImage[T]:
        info, options, log = request.info, request.options, request.log
        started_s = log.enter(Stage.RENDER)
        raw = scores.raw.alone()  # whoever hears of it may keep it
        if drawn is None:
            judged, overlay = self._local.judge(raw, request.thresholds, prepared.size_px, options), None
        else:
            judged, overlay = drawn.judged, drawn.overlay
        if prepared.canvas is not None:
            overlay = self._local.draw(prepared.canvas, raw, judged, options, log)
        elif options.overlay and overlay is None:
            overlay = self._local.overlay_of(request.image, request.shape, raw, request.thresholds, options)
        log.enter(Stage.ENCODE)
        inspection = Inspection(
            reference_id=info.reference_id,
            reference_revision=info.revision,
            verdict=judged.verdict,
            source_size_px=prepared.size_px,
            regions=judged.regions,
            overlay=overlay,
            score_map=raw.anomaly_map if options.score_map else None,
            timing=Timing(
                queue_ms=1000 * log.waited_s,
                decode_ms=1000 * log.took_s(Stage.DECODE),
                embed_ms=scores.times.embed_ms,
                search_ms=scores.times.search_ms,
                render_ms=_ms_since(started_s) + (0.0 if drawn is None else drawn.took_ms),
                total_ms=_ms_since(log.began_at_s),
            ),
        )
        small_image = self._local.small_image(request.image, prepared)
        inspected = InspectedImage(inspection, request.answer(inspection), raw, small_image)
        log.enter(None)
        return inspected


def _ms_since(start_s: float) -> float:
    return (time.perf_counter() - start_s) * 1000
