"""JPEG files that a device decodes."""

from __future__ import annotations

from dataclasses import dataclass

ORIENTATIONS = range(1, 9)
"""How EXIF says that an image is to be turned; 1: not at all."""
_FIRST_ON_SIDE = 5  # from this orientation on, width and height change places


class DeviceCodecError(Exception):
    """The device cannot decode this file, or draw on it. The CPU does it then, so no caller sees this."""


@dataclass(frozen=True, slots=True, eq=False)
class JpegFile:
    """A JPEG that is whole and of a layout that devices know: the CPU has checked it, and removed its metadata."""

    data: bytes
    stored_size_px: tuple[int, int]  # (width, height), before it is turned upright
    orientation: int = 1  # of EXIF: how to turn it

    def __post_init__(self) -> None:
        if self.orientation not in ORIENTATIONS:
            raise ValueError(f"There is no EXIF orientation {self.orientation}; it is 1 to 8.")
        if min(self.stored_size_px) < 1:
            raise ValueError(f"A JPEG cannot have {self.stored_size_px} pixels.")

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the upright image."""
        width, height = self.stored_size_px
        return (height, width) if self.orientation >= _FIRST_ON_SIDE else (width, height)

    @property
    def nbytes(self) -> int:
        return len(self.data)
