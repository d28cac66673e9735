"""Tensors of the Open Inference Protocol: what is taken and given, and images out of one that was sent."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.images import RgbImage, SentImage
from patchserve_server.domain.inspection import Inspection

_LENGTH: Final = struct.Struct("<I")
_CHANNELS: Final = 3
_CHUNK: Final = 2**16


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that is taken."""

    datatype: str
    shape: tuple[int, ...]  # -1: any
    contents: str  # its field of InferTensorContents


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that is given."""

    datatype: str
    contents: str
    dtype: str  # NumPy's; empty: bytes
    value: Callable[[Inspection], Any]  # of one image


INPUTS: Final = {
    "image": Input("BYTES", (-1,), "bytes_contents"),
    "pixels": Input("UINT8", (-1, -1, -1, _CHANNELS), "uint_contents"),
}
OUTPUTS: Final = {
    "score": Output("FP32", "fp32_contents", "<f4", lambda found: found.verdict.anomaly.score),
    "is_anomalous": Output("BOOL", "bool_contents", "?", lambda found: found.verdict.anomaly.is_anomalous),
    "damage_percentage": Output("FP64", "fp64_contents", "<f8", lambda found: found.verdict.damage.damage_percentage),
    "anomaly_map": Output("FP32", "fp32_contents", "<f4", lambda found: found.score_map),
    "overlay": Output("BYTES", "bytes_contents", "", lambda found: found.overlay.data if found.overlay else b""),
}


def sent_images(request: pb.ModelInferRequest, max_images: int) -> Sequence[SentImage]:
    """The images of a request's one input.

    Raises:
        InvalidInputError: name, type, shape and contents are not those of `image` or `pixels`, or do not agree.
    """
    if len(request.inputs) != 1:
        raise InvalidInputError("inputs", f"inputs has one tensor, {_either(INPUTS)}, not {len(request.inputs)}.")
    tensor = request.inputs[0]
    if (known := INPUTS.get(tensor.name)) is None:
        raise InvalidInputError("inputs[0].name", f"The input is {_either(INPUTS)}.")
    if tensor.datatype != known.datatype:
        raise InvalidInputError("inputs[0].datatype", f"The datatype of {tensor.name} is {known.datatype}.")
    no_parameters(tensor.parameters, "inputs[0].parameters")
    shape = _shape(tensor, max_images)
    if len(request.raw_input_contents) > 1:
        raise InvalidInputError("raw_input_contents", "raw_input_contents has one element for the one input.")
    if request.raw_input_contents and tensor.HasField("contents"):
        raise InvalidInputError("inputs[0].contents", "Give contents or raw_input_contents, not both.")
    if known.datatype == "BYTES":
        return _files(request, shape[0])
    return _images(request, shape)


def _shape(tensor: pb.ModelInferRequest.InferInputTensor, max_images: int) -> tuple[int, ...]:
    """(N,) of `image`, (N, H, W, 3) of `pixels`."""
    field, shape = "inputs[0].shape", tuple(tensor.shape)
    if tensor.name == "image":
        if len(shape) != 1:
            raise InvalidInputError(field, "The shape of image is [N], the number of images.")
    else:
        if len(shape) == 3:  # noqa: PLR2004 - one image
            shape = (1, *shape)
        if len(shape) != 4 or shape[-1] != _CHANNELS or min(shape) < 1:  # noqa: PLR2004
            raise InvalidInputError(field, "The shape of pixels is [height, width, 3] or [N, height, width, 3].")
    if not 1 <= shape[0] <= max_images:
        raise InvalidInputError(field, f"A request has 1 to {max_images} images here.")
    return shape


def _files(request: pb.ModelInferRequest, count: int) -> list[SentImage]:
    if request.raw_input_contents:
        return list(split_bytes(request.raw_input_contents[0], count))
    files = _typed(request.inputs[0], "bytes_contents")
    if len(files) != count:
        text = f"The shape tells of {count} images, bytes_contents has {len(files)}."
        raise InvalidInputError("inputs[0].contents", text)
    return list(files)


def split_bytes(raw: bytes, count: int) -> list[bytes]:
    """The `count` elements of a BYTES tensor: each has its length before it, 4 bytes, little-endian.

    Raises:
        InvalidInputError: there are fewer or more, or the last one is cut off.
    """
    elements: list[bytes] = []
    at = 0
    while len(elements) < count:
        begin = at + _LENGTH.size
        if begin > len(raw):
            _bad_framing(f"The shape tells of {count} elements, the bytes end after {len(elements)}.")
        (length,) = _LENGTH.unpack_from(raw, at)
        at = begin + length
        if at > len(raw):
            _bad_framing(f"Element {len(elements)} should have {length} bytes, {len(raw) - begin} are left.")
        elements.append(raw[begin:at])
    if at != len(raw):
        _bad_framing(f"The shape tells of {count} elements, after which {len(raw) - at} bytes are left.")
    return elements


def _bad_framing(what: str) -> None:
    text = f"{what} A BYTES element has its length before it, 4 bytes, little-endian."
    raise InvalidInputError("raw_input_contents[0]", text)


def join_bytes(elements: Sequence[bytes]) -> bytes:
    """The reverse of `split_bytes`."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def _images(request: pb.ModelInferRequest, shape: tuple[int, ...]) -> list[SentImage]:
    expected = math.prod(shape)
    if request.raw_input_contents:
        field, data = "raw_input_contents[0]", request.raw_input_contents[0]
        _check_length(field, expected, len(data))
    else:
        field, values = "inputs[0].contents", _typed(request.inputs[0], "uint_contents")
        _check_length(field, expected, len(values))
        try:  # in pieces, so that other threads get their turn
            data = b"".join(bytes(values[at : at + _CHUNK]) for at in range(0, expected, _CHUNK))
        except ValueError:
            raise InvalidInputError(field, "A value of UINT8 is 0 to 255.") from None
    images: RgbImage = np.frombuffer(data, np.uint8).reshape(shape)
    return list(images)


def _check_length(field: str, expected: int, given: int) -> None:
    if given != expected:
        raise InvalidInputError(field, f"The shape tells of {expected} values, there are {given}.")


def _typed(tensor: pb.ModelInferRequest.InferInputTensor, name: str) -> Any:  # noqa: ANN401 - a repeated field
    if [field.name for field, _ in tensor.contents.ListFields()] != [name]:
        text = f"{tensor.name} comes in contents.{name}, or in raw_input_contents; nothing else is filled."
        raise InvalidInputError("inputs[0].contents", text)
    return getattr(tensor.contents, name)


def no_parameters(parameters: Any, field: str) -> None:  # noqa: ANN401 - a map field
    if parameters:
        text = f"{field}: tensors have no parameters here; there is no shared memory and no classification."
        raise InvalidInputError(field, text)


def _either(names: Any) -> str:  # noqa: ANN401 - what has names
    return " or ".join(names)
