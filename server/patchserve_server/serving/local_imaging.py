"""What this process does to the pixels of an image: before it is scored, and after. Blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from patchserve_server import imaging
from patchserve_server.domain.images import ModelInputs, RgbImage, SentImage
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import (
    EncodedOverlay,
    HeatmapScale,
    OutputOptions,
    OverlayFormat,
    RawScores,
    Region,
    Verdict,
)
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.reference import Calibration
from patchserve_server.domain.verdict import judge
from patchserve_server.domain.work_events import Stage, StepLog


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """An image that can be scored."""

    scored: ModelInputs | JpegFile  # (H, W, 3); or for a device that decodes it
    size_px: tuple[int, int]  # (width, height)
    canvas: imaging.Canvas | None  # None: no overlay was requested, or the device draws it


@dataclass(frozen=True, slots=True, eq=False)
class JudgedImage:
    """What the scores of an image say."""

    verdict: Verdict
    regions: tuple[Region, ...]


class LocalImaging:
    """Decodes, judges and renders; or checks, judges and describes, for a device that decodes and draws.

    Args:
        limits: of images.
        max_overlay_bytes: the largest overlay that can be sent.
        default_scale: of overlays.
        device_decodes: whether the engine takes JPEG files.
    """

    def __init__(
        self,
        limits: imaging.ImageLimits,
        *,
        max_overlay_bytes: int,
        default_scale: HeatmapScale,
        device_decodes: bool,
    ) -> None:
        self._limits = limits
        self._max_overlay_bytes = max_overlay_bytes
        self._default_scale = default_scale
        self._device_decodes = device_decodes

    def prepare(self, image: SentImage, shape: InputShape, options: OutputOptions) -> PreparedImage:
        """The image for the engine. Which decoder reads its pixels does not depend on the requested output.

        Raises:
            InvalidImageError: it is no image that is supported, or its overlay would be too large.
        """
        file = imaging.device_file(image, self._limits) if self._device_decodes else None
        if file is None:
            return self.decode(image, shape, options)
        canvas = None
        if options.overlay and options.overlay_format is OverlayFormat.JPEG:
            self._overlay_size(file.size_px, options)
        elif options.overlay:
            canvas = self.canvas(imaging.open_image(image, self._limits), shape, options)
        return PreparedImage(file, file.size_px, canvas)

    def decode(self, image: SentImage, shape: InputShape, options: OutputOptions) -> PreparedImage:
        """The same, decoded here whatever it is."""
        pil_image = imaging.open_image(image, self._limits)
        canvas = self.canvas(pil_image, shape, options) if options.overlay else None
        return PreparedImage(imaging.to_model_input(pil_image, shape), pil_image.size, canvas)

    def canvas(self, image: imaging.PilImage, shape: InputShape, options: OutputOptions) -> imaging.Canvas:
        """What its overlay is drawn on.

        Raises:
            ImageTooLargeError, ResponseTooLargeError: the overlay would be too large.
        """
        size_px = self._overlay_size(image.size, options)
        canvas = imaging.prepare_canvas(image, self._scale(options), map_shape=shape.map_shape, size_px=size_px)
        imaging.check_overlay_bytes(canvas, options.overlay_format, self._max_overlay_bytes)
        return canvas

    def judge(
        self, raw: RawScores, thresholds: Calibration, size_px: tuple[int, int], options: OutputOptions
    ) -> JudgedImage:
        """The verdict on an image of this (width, height)."""
        verdict = judge(raw, thresholds)
        regions: tuple[Region, ...] = ()
        if options.max_regions:
            regions = imaging.find_regions(raw.anomaly_map, verdict, size_px, options.max_regions)
        return JudgedImage(verdict, regions)

    def small_image(self, image: SentImage, prepared: PreparedImage) -> Callable[[], RgbImage]:
        """Gives what a thumbnail is drawn from, (H, W, 3). Until then, nothing holds a large model input."""
        scored = prepared.scored
        if not isinstance(scored, JpegFile):
            small = imaging.shrink_for_thumbnail(scored)
            return lambda: small
        if not isinstance(image.content, bytes):
            raise TypeError("A raw frame is no file.")
        return partial(imaging.small_image, image.content, scored.orientation)

    def draw(
        self, canvas: imaging.Canvas, raw: RawScores, judged: JudgedImage, options: OutputOptions, log: StepLog
    ) -> EncodedOverlay:
        """The overlay of a judged image, on its canvas.

        Raises:
            ResponseTooLargeError: it has too many bytes.
        """
        threshold = judged.verdict.pixel_threshold
        pixels = imaging.render_overlay(canvas, raw.anomaly_map, pixel_threshold=threshold, regions=judged.regions)
        log.enter(Stage.ENCODE)
        return imaging.encode_overlay(pixels, options.overlay_format, self._max_overlay_bytes)

    def drawing(self, file: JpegFile, raw: RawScores, judged: JudgedImage, options: OutputOptions) -> OverlayDrawing:
        """The same overlay, for a device that draws it."""
        scale = self._scale(options)
        return OverlayDrawing(
            file,
            imaging.heat_levels(raw.anomaly_map, scale, judged.verdict.pixel_threshold),
            scale,
            self._overlay_size(file.size_px, options),
            tuple(region.polygon for region in judged.regions) if scale is HeatmapScale.CALIBRATED else (),
        )

    def drawn(self, data: bytes, drawing: OverlayDrawing) -> EncodedOverlay:
        """The overlay that a device has drawn.

        Raises:
            ResponseTooLargeError: it has too many bytes.
        """
        return imaging.encoded_overlay(data, OverlayFormat.JPEG, drawing.size_px, self._max_overlay_bytes)

    def overlay_of(
        self, image: SentImage, shape: InputShape, raw: RawScores, thresholds: Calibration, options: OutputOptions
    ) -> EncodedOverlay:
        """The overlay of an image that is not decoded here any more, or never was.

        Raises:
            The errors of `canvas` and `draw`.
        """
        pil_image = imaging.open_image(image, self._limits)
        judged = self.judge(raw, thresholds, pil_image.size, options)
        return self.draw(self.canvas(pil_image, shape, options), raw, judged, options, StepLog())

    def _overlay_size(self, size_px: tuple[int, int], options: OutputOptions) -> tuple[int, int]:
        overlay_px = imaging.overlay_size(size_px, options.overlay_max_side_px)
        imaging.check_overlay_size(overlay_px, options.overlay_format)
        return overlay_px

    def _scale(self, options: OutputOptions) -> HeatmapScale:
        return options.heatmap_scale or self._default_scale
