"""Turns pixels on a device, as `imaging.decode` turns an image."""

from __future__ import annotations

from typing import Final

from torch import Tensor

_TURNS: Final = {
    2: (False, (2,)),
    3: (False, (1, 2)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (2,)),
    7: (True, (1, 2)),
    8: (True, (1,)),
}
"""By EXIF orientation: whether rows become columns, and which axes are reversed then."""


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Pixels (C, H, W) as they are stored, turned by their EXIF orientation. May be a view."""
    is_transposed, reversed_axes = _TURNS.get(orientation, (False, ()))
    turned = pixels.transpose(1, 2) if is_transposed else pixels
    return turned.flip(reversed_axes) if reversed_axes else turned
