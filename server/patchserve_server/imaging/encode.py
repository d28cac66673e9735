"""Encodes overlays as PNG, JPEG or WebP."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import cv2
from PIL import Image

from patchserve_server.domain.errors import ImageTooLargeError, ResponseTooLargeError
from patchserve_server.domain.images import RgbImage
from patchserve_server.domain.inspection import EncodedOverlay, HeatmapScale, OverlayFormat
from patchserve_server.imaging.canvas import Canvas
from patchserve_server.imaging.limits import MAX_SIDE_PX
from patchserve_server.imaging.png import encode_png_within, estimate_png_bytes

MAX_OVERLAY_SIDE_PX = {OverlayFormat.PNG: MAX_SIDE_PX, OverlayFormat.JPEG: 65_500, OverlayFormat.WEBP: 16_383}
"""The longest side of an overlay. PNG allows more, but no image is larger. The others are encoder limits."""

_JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 90)
_SURE_SHARE = 0.5  # an overlay has at least this share of the bytes of its image
# Not OpenCV, which always uses WebP's slowest method: 3 % smaller files in nearly twice the time.
_WEBP_OPTIONS = {"quality": 85, "method": 2}


def check_overlay_size(size_px: tuple[int, int], format_: OverlayFormat) -> None:
    """Check that an overlay of this (width, height) can be encoded, before anything is computed.

    Raises:
        ImageTooLargeError: a side is too long for the format.
    """
    max_side_px = MAX_OVERLAY_SIDE_PX[format_]
    if max(size_px) > max_side_px:
        width, height = size_px
        raise ImageTooLargeError(
            f"The overlay would have {width} x {height} pixels; {format_.name} allows at most "
            f"{max_side_px:,} per side. Choose another overlay_format or set overlay_max_side_px."
        )


def check_overlay_bytes(canvas: Canvas, format_: OverlayFormat, max_bytes: int) -> None:
    """Check that the overlay on this canvas can be sent, as far as that is sure before anything is computed.

    The heat map takes at most a part of the noise of an image away, which is what makes a PNG large.

    Raises:
        ResponseTooLargeError: it would surely have more bytes.
    """
    if format_ is not OverlayFormat.PNG or canvas.scale is HeatmapScale.RELATIVE or canvas.pixels.nbytes <= max_bytes:
        return
    if estimate_png_bytes(canvas.pixels) * _SURE_SHARE > max_bytes:
        raise _too_large(max_bytes)


def encode_overlay(image: RgbImage, format_: OverlayFormat, max_bytes: int = sys.maxsize) -> EncodedOverlay:
    """Encode an overlay (H, W, 3): PNG for speed, JPEG and WebP in a quality with clear outlines.

    Raises:
        ResponseTooLargeError: it has more bytes.
    """
    height, width = image.shape[:2]
    return encoded_overlay(_ENCODERS[format_](image, max_bytes), format_, (width, height), max_bytes)


def encoded_overlay(
    data: bytes | None, format_: OverlayFormat, size_px: tuple[int, int], max_bytes: int
) -> EncodedOverlay:
    """The file of an overlay; None: it has more bytes than allowed.

    Raises:
        ResponseTooLargeError: it has.
    """
    if data is None or len(data) > max_bytes:
        raise _too_large(max_bytes)
    return EncodedOverlay(data, format_, size_px)


def _too_large(max_bytes: int) -> ResponseTooLargeError:
    message = (
        f"The overlay would have more than {max_bytes:,} bytes, the most that are sent. Ask for a JPEG overlay or a "
        "smaller overlay_max_side_px."
    )
    return ResponseTooLargeError("output", message)


def _encode_jpeg(image: RgbImage, _max_bytes: int) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG_OPTIONS)
    return data.tobytes()


def _encode_webp(image: RgbImage, _max_bytes: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", **_WEBP_OPTIONS)
    return file.getvalue()


_ENCODERS: dict[OverlayFormat, Callable[[RgbImage, int], bytes | None]] = {
    OverlayFormat.PNG: encode_png_within,
    OverlayFormat.JPEG: _encode_jpeg,
    OverlayFormat.WEBP: _encode_webp,
}
