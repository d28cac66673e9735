"""Limits on the size of an image."""

from __future__ import annotations

from dataclasses import dataclass

from patchserve_server.domain.errors import ImageTooLargeError

MAX_SIDE_PX = 65_535
"""The longest side that JPEG can have. Resizing an image of one row and a million columns would take gigabytes."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on the size of an image. Checked before any pixel is decoded.

    Raises:
        ValueError: a limit is not positive.
    """

    max_bytes: int = 32 * 2**20  # of the encoded file
    max_pixels: int = 64_000_000

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_pixels) <= 0:
            raise ValueError(f"image limits are positive numbers, not {self.max_bytes} and {self.max_pixels}")

    def check_bytes(self, byte_count: int) -> None:
        """Check the size of an encoded file.

        Raises:
            ImageTooLargeError: it is over the limit.
        """
        if byte_count > self.max_bytes:
            raise ImageTooLargeError(f"The image has {byte_count:,} bytes; at most {self.max_bytes:,} are allowed.")

    def check_size(self, size_px: tuple[int, int]) -> None:
        """Check the (width, height) of an image.

        Raises:
            ImageTooLargeError: there are too many pixels, or one side is too long.
        """
        width, height = size_px
        if width * height > self.max_pixels:
            limit = f"{self.max_pixels:,}"
        elif max(size_px) > MAX_SIDE_PX:
            limit = f"{MAX_SIDE_PX:,} per side"
        else:
            return
        raise ImageTooLargeError(f"The image has {width} x {height} pixels; at most {limit} are allowed.")
