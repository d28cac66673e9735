"""The layouts of the tensor `pixels`, which the parameter `pixel_format` of a request names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.raw_frame import PIXEL_FORMATS, RGB8, PixelFormat, RawFrame

_DATATYPES: Final = {np.uint8: "UINT8", np.uint16: "UINT16"}


def pixel_format(name: object) -> PixelFormat:
    """The format of this name, in upper or lower case; RGB with 8 bits if it is None.

    Raises:
        InvalidInputError: there is no such format.
    """
    if name is None:
        return RGB8
    found = PIXEL_FORMATS.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        field = "parameters.pixel_format"
        raise InvalidInputError(field, f"{field} must be one of {', '.join(PIXEL_FORMATS)}.")
    return found


def datatype_of(format_: PixelFormat) -> str:
    return _DATATYPES[format_.dtype]


def little_endian(format_: PixelFormat) -> np.dtype[np.unsignedinteger]:
    """The type of raw contents."""
    return np.dtype(format_.dtype).newbyteorder("<")


def shape_of(format_: PixelFormat) -> str:
    """The shape of a tensor of such images, for people."""
    height = "height x 3 / 2" if format_.layout.is_planar else "height"
    channels = format_.layout.samples_per_pixel
    return f"[N, {height}, width{f', {channels}' if channels > 1 else ''}]"


def descriptions() -> Mapping[str, str]:
    """Datatype, shape and rules of each format, for the metadata of a model."""
    return {f"pixel_format.{name}": _description(format_) for name, format_ in PIXEL_FORMATS.items()}


def _description(format_: PixelFormat) -> str:
    step_y, step_x = format_.layout.step_px
    rule = "" if step_x == 1 else ", both sides even" if step_y == step_x else ", width even"
    largest = f", 0 to {2**format_.bits - 1}" if format_.bits > 8 else ""  # noqa: PLR2004
    return f"{datatype_of(format_)} {shape_of(format_)}{largest}{rule}"


def full_shape(shape: Sequence[int], format_: PixelFormat, field: str) -> tuple[int, ...]:
    """The shape with the number of images first, and without an axis for the only sample of a pixel.

    Raises:
        InvalidInputError: a tensor of this format does not have this shape.
    """
    sizes, channels = tuple(shape), format_.layout.samples_per_pixel
    axes = 3 if channels == 1 else 4
    if channels == 1 and len(sizes) in (3, 4) and sizes[-1] == 1:
        sizes = sizes[:-1]
    if len(sizes) == axes - 1:  # one image
        sizes = (1, *sizes)
    if len(sizes) != axes or min(sizes) < 1 or (channels > 1 and sizes[-1] != channels):
        one = shape_of(format_).replace("N, ", "")
        raise InvalidInputError(field, f"The shape of pixels must be {one} or {shape_of(format_)}.")
    return sizes


def frames(data: bytes, shape: tuple[int, ...], format_: PixelFormat, field: str) -> list[RawFrame]:
    """The images of a tensor; they share its memory.

    Raises:
        InvalidInputError: images of this format cannot have this size.
    """
    tensor = np.frombuffer(data, little_endian(format_)).reshape(shape).astype(format_.dtype, copy=False)
    try:
        return [RawFrame(samples, format_) for samples in tensor]
    except InvalidInputError as error:
        raise error.with_field(field) from error
