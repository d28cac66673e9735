"""Pixels as a camera sends them, and the names of their layouts: those of GenICam's PFNC in lower case, and FourCC."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.errors import InvalidInputError

BAYER_MIN_SIDE_PX: Final = 4  # smaller mosaics cannot be interpolated


class SampleLayout(enum.Enum):
    """How the samples of an image lie in an array."""

    RGB = "rgb"  # (H, W, 3)
    BGR = "bgr"  # (H, W, 3)
    MONO = "mono"  # (H, W), gray
    BAYER_RG = "bayerrg"  # (H, W), a color filter; its first row begins with red and green
    BAYER_GR = "bayergr"
    BAYER_GB = "bayergb"
    BAYER_BG = "bayerbg"
    YUYV = "yuv422_8"  # (H, W, 2), luma and a color difference in turn
    UYVY = "yuv422_8_uyvy"
    NV12 = "nv12"  # (H x 3 / 2, W), luma above interleaved color differences of half the size
    I420 = "i420"  # (H x 3 / 2, W), luma above two planes of color differences

    @property
    def samples_per_pixel(self) -> int:
        """The length of an array's last axis. 1: the array has no such axis."""
        return {SampleLayout.RGB: 3, SampleLayout.BGR: 3, SampleLayout.YUYV: 2, SampleLayout.UYVY: 2}.get(self, 1)

    @property
    def is_bayer(self) -> bool:
        return self.value.startswith("bayer")

    @property
    def is_planar(self) -> bool:
        """Whether an array has one and a half times as many rows as the image."""
        return self in (SampleLayout.NV12, SampleLayout.I420)

    @property
    def step_px(self) -> tuple[int, int]:
        """(height, width): the sides of an image must be multiples of it."""
        if self.is_bayer or self.is_planar:
            return 2, 2
        return (1, 2) if self.samples_per_pixel == 2 else (1, 1)  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """A layout and how many bits of each sample count, from the lowest."""

    layout: SampleLayout
    bits: int

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        return np.uint8 if self.bits == 8 else np.uint16  # noqa: PLR2004


_LAYOUTS_OF_ANY_DEPTH: Final = tuple(
    layout
    for layout in SampleLayout
    if layout.samples_per_pixel != 2 and not layout.is_planar  # noqa: PLR2004
)
PIXEL_FORMATS: Final = {
    f"{layout.value}{bits}": PixelFormat(layout, bits)
    for layout in _LAYOUTS_OF_ANY_DEPTH
    for bits in (8, 10, 12, 14, 16)
} | {layout.value: PixelFormat(layout, 8) for layout in SampleLayout if layout not in _LAYOUTS_OF_ANY_DEPTH}
"""All formats by name, such as rgb8, mono12, bayerrg10, yuv422_8, nv12."""
RGB8: Final = PIXEL_FORMATS["rgb8"]


@dataclass(frozen=True, slots=True, eq=False)
class RawFrame:
    """One upright image as an array of samples.

    Raises:
        InvalidInputError: the array does not have the shape of such an image.
        ValueError: its samples are of another type than the format's.
    """

    samples: NDArray[np.unsignedinteger[Any]]  # as SampleLayout says
    pixel_format: PixelFormat = RGB8

    def __post_init__(self) -> None:
        layout, shape = self.pixel_format.layout, self.samples.shape
        if self.samples.dtype != self.pixel_format.dtype:
            raise ValueError(f"{layout.value} with {self.pixel_format.bits} bits is not {self.samples.dtype}")
        channels = () if layout.samples_per_pixel == 1 else (layout.samples_per_pixel,)
        if len(shape) < 2 or shape[2:] != channels or 0 in shape:  # noqa: PLR2004
            raise InvalidInputError("shape", f"An image of this format is not an array of shape {list(shape)}.")
        if layout.is_planar and shape[0] % 3:
            raise InvalidInputError("shape", f"{layout.value} has 3 rows for 2 of the image, not {shape[0]} in all.")
        width, height = self.size_px
        step_y, step_x = layout.step_px
        if height % step_y or width % step_x:
            sides = "both sides" if step_y == step_x else "the width"
            raise InvalidInputError("shape", f"With {layout.value}, {sides} must be even, not {width} x {height}.")
        if layout.is_bayer and min(width, height) < BAYER_MIN_SIDE_PX:
            message = f"With {layout.value}, both sides are at least {BAYER_MIN_SIDE_PX} px, not {width} x {height}."
            raise InvalidInputError("shape", message)

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        rows, width = self.samples.shape[:2]
        return width, rows * 2 // 3 if self.pixel_format.layout.is_planar else rows

    @property
    def nbytes(self) -> int:
        return self.samples.nbytes
