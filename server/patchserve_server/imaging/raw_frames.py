"""Camera frames to RGB."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.errors import UndecodableImageError
from patchserve_server.domain.images import RgbImage
from patchserve_server.domain.raw_frame import PIXEL_FORMATS, RawFrame, SampleLayout
from patchserve_server.imaging.sample_depth import MAX_SAMPLE, SIXTEEN_BITS
from patchserve_server.imaging.sixteen_bits import eight_bit_levels

_CONVERSIONS: Final = {
    SampleLayout.BGR: cv2.COLOR_BGR2RGB,
    SampleLayout.MONO: cv2.COLOR_GRAY2RGB,
    SampleLayout.BAYER_RG: cv2.COLOR_BayerRGGB2RGB,
    SampleLayout.BAYER_GR: cv2.COLOR_BayerGRBG2RGB,
    SampleLayout.BAYER_GB: cv2.COLOR_BayerGBRG2RGB,
    SampleLayout.BAYER_BG: cv2.COLOR_BayerBGGR2RGB,
    SampleLayout.YUYV: cv2.COLOR_YUV2RGB_YUY2,
    SampleLayout.UYVY: cv2.COLOR_YUV2RGB_UYVY,
    SampleLayout.NV12: cv2.COLOR_YUV2RGB_NV12,
    SampleLayout.I420: cv2.COLOR_YUV2RGB_I420,
}


def to_rgb(frame: RawFrame, white_level: int | None = None) -> RgbImage:
    """The frame as RGB, scaled to 8 bits; the samples themselves if they are RGB of 8 bits already.

    A Bayer mosaic is interpolated linearly. YUV is BT.601 with 16 as black and 235 as white, as in video.

    Args:
        frame: as it was sent.
        white_level: of samples of 16 bits; None: the largest value. Other depths know their own.

    Raises:
        UndecodableImageError: a sample has more bits than the format says.
    """
    conversion = _CONVERSIONS.get(frame.pixel_format.layout)
    samples = _eight_bits(frame, white_level)
    return samples if conversion is None else cv2.cvtColor(samples, conversion).astype(np.uint8, copy=False)


def _eight_bits(frame: RawFrame, white_level: int | None) -> NDArray[np.uint8]:
    bits = frame.pixel_format.bits
    if frame.samples.dtype == np.uint8:
        return frame.samples.astype(np.uint8, copy=False)
    white = 2**bits - 1
    if frame.samples.max() > white:
        raise UndecodableImageError(_too_bright_message(frame))
    if bits == SIXTEEN_BITS:
        white = white_level or MAX_SAMPLE
    return cv2.LUT(frame.samples, eight_bit_levels(white)).astype(np.uint8, copy=False)


def _too_bright_message(frame: RawFrame) -> str:
    name = next(name for name, pixel_format in PIXEL_FORMATS.items() if pixel_format == frame.pixel_format)
    bits = frame.pixel_format.bits
    return (
        f"A sample is {frame.samples.max()}, but {name} has at most {2**bits - 1}. If the bits are the upper ones of "
        f"16, the format is {frame.pixel_format.layout.value}16."
    )
