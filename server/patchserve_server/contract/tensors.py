"""Tensors of the Open Inference Protocol: the inputs and outputs of a model, and images from an input."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.contract.neutral_parameters import INPUT_PARAMETERS, check_parameters, value_of
from patchserve_server.contract.pixel_formats import datatype_of, frames, full_shape, little_endian
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.inspection import Inspection
from patchserve_server.domain.raw_frame import RGB8, PixelFormat, RawFrame

_LENGTH: Final = struct.Struct("<I")
_CHUNK: Final = 2**16


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor of a request."""

    datatype: str
    shape: tuple[int, ...]  # -1: any
    contents: str  # its field in InferTensorContents


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of a response."""

    datatype: str
    contents: str
    dtype: str  # of NumPy; empty: bytes
    value: Callable[[Inspection], Any]  # of one image


def _overlay(inspection: Inspection) -> bytes:
    return inspection.overlay.data if inspection.overlay else b""


INPUTS: Final = {
    "image": Input("BYTES", (-1,), "bytes_contents"),
    "pixels": Input("UINT8", (-1, -1, -1, 3), "uint_contents"),  # of RGB8; other formats have others
}
OUTPUTS: Final = {
    "score": Output("FP32", "fp32_contents", "<f4", lambda result: result.verdict.anomaly.score),
    "is_anomalous": Output("BOOL", "bool_contents", "?", lambda result: result.verdict.anomaly.is_anomalous),
    "damage_percentage": Output("FP64", "fp64_contents", "<f8", lambda result: result.verdict.damage.damage_percentage),
    "anomaly_map": Output("FP32", "fp32_contents", "<f4", lambda result: result.score_map),
    "overlay": Output("BYTES", "bytes_contents", "", _overlay),
}
_INPUT_NAMES: Final = " or ".join(INPUTS)


def contents_of(
    request: pb.ModelInferRequest, max_images: int, pixel_format: PixelFormat = RGB8
) -> Sequence[bytes | RawFrame]:
    """The images of a request, from its one input.

    Raises:
        InvalidInputError: the input is neither `image` nor `pixels`, or its type, shape or contents do not fit.
    """
    if len(request.inputs) != 1:
        raise InvalidInputError("inputs", f"inputs must have one tensor, {_INPUT_NAMES}, not {len(request.inputs)}.")
    tensor = request.inputs[0]
    if tensor.name not in INPUTS:
        raise InvalidInputError("inputs[0].name", f"The input must be {_INPUT_NAMES}.")
    is_files = tensor.name == "image"
    if is_files and pixel_format != RGB8:
        message = "parameters.pixel_format is for the input pixels; the files of image know their own."
        raise InvalidInputError("parameters.pixel_format", message)
    datatype = INPUTS["image"].datatype if is_files else datatype_of(pixel_format)
    if tensor.datatype != datatype:
        raise InvalidInputError("inputs[0].datatype", f"The datatype of {tensor.name} must be {datatype}.")
    check_parameters(tensor.parameters, INPUT_PARAMETERS, "inputs[0].parameters")
    _check_declared_size(request)
    shape = _file_shape(tensor) if is_files else full_shape(tensor.shape, pixel_format, "inputs[0].shape")
    if not 1 <= shape[0] <= max_images:
        raise InvalidInputError("inputs[0].shape", f"This server takes 1 to {max_images} images in a request.")
    if len(request.raw_input_contents) > 1:
        raise InvalidInputError("raw_input_contents", "raw_input_contents must have one element, for the one input.")
    if request.raw_input_contents and tensor.HasField("contents"):
        raise InvalidInputError("inputs[0].contents", "Send contents or raw_input_contents, not both.")
    return _files(request, shape[0]) if is_files else _frames(request, shape, pixel_format)


def _check_declared_size(request: pb.ModelInferRequest) -> None:
    """Clients of KServe say how many raw bytes an input has."""
    declared = request.inputs[0].parameters.get("binary_data_size")
    if declared is None or not request.raw_input_contents:
        return
    size, actual = value_of(declared), len(request.raw_input_contents[0])
    if size != actual:
        message = f"binary_data_size says {size} bytes, but there are {actual}."
        raise InvalidInputError("inputs[0].parameters.binary_data_size", message)


def _file_shape(tensor: pb.ModelInferRequest.InferInputTensor) -> tuple[int]:
    """(N,)."""
    if len(tensor.shape) != 1:
        raise InvalidInputError("inputs[0].shape", "The shape of image must be [N], the number of images.")
    return (tensor.shape[0],)


def _files(request: pb.ModelInferRequest, image_count: int) -> list[bytes]:
    if request.raw_input_contents:
        return split_bytes(request.raw_input_contents[0], image_count)
    files = _typed(request.inputs[0], "bytes_contents")
    if len(files) != image_count:
        message = f"The shape says {image_count} images, but bytes_contents has {len(files)}."
        raise InvalidInputError("inputs[0].contents", message)
    return list(files)


def split_bytes(raw: bytes, count: int) -> list[bytes]:
    """The `count` elements of a BYTES tensor. Each one comes after its length: 4 bytes, little-endian.

    Raises:
        InvalidInputError: there are fewer or more elements, or the last one is cut off.
    """
    elements: list[bytes] = []
    end = 0
    while len(elements) < count:
        start = end + _LENGTH.size
        if start > len(raw):
            _bad_framing(f"The shape says {count} elements, but the bytes end after {len(elements)}.")
        (length,) = _LENGTH.unpack_from(raw, end)
        end = start + length
        if end > len(raw):
            _bad_framing(f"Element {len(elements)} should have {length} bytes, but only {len(raw) - start} follow.")
        elements.append(raw[start:end])
    if end != len(raw):
        _bad_framing(f"The shape says {count} elements, but {len(raw) - end} bytes follow after them.")
    return elements


def _bad_framing(problem: str) -> NoReturn:
    message = f"{problem} A BYTES element follows its length: 4 bytes, little-endian."
    raise InvalidInputError("raw_input_contents[0]", message)


def join_bytes(elements: Sequence[bytes]) -> bytes:
    """The reverse of `split_bytes`."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def _frames(request: pb.ModelInferRequest, shape: tuple[int, ...], pixel_format: PixelFormat) -> list[RawFrame]:
    expected, dtype = math.prod(shape), little_endian(pixel_format)
    if request.raw_input_contents:
        data = request.raw_input_contents[0]
        _check_length("raw_input_contents[0]", expected * dtype.itemsize, len(data), "bytes")
    else:
        field, values = "inputs[0].contents", _typed(request.inputs[0], "uint_contents")
        _check_length(field, expected, len(values), "values")
        data = b"".join(_chunks(values, dtype, field))
    return frames(data, shape, pixel_format, "inputs[0].shape")


def _chunks(values: Sequence[int], dtype: np.dtype[Any], field: str) -> Iterator[bytes]:
    """The values as raw contents, in chunks, so that other threads can run."""
    largest = np.iinfo(dtype).max
    for start in range(0, len(values), _CHUNK):
        chunk = np.array(values[start : start + _CHUNK], np.uint32)
        if chunk.max() > largest:
            raise InvalidInputError(field, f"Values of {dtype.name.upper()} must be 0 to {largest}.")
        yield chunk.astype(dtype).tobytes()


def _check_length(field: str, expected: int, actual: int, counted: str) -> None:
    if actual != expected:
        raise InvalidInputError(field, f"The shape says {expected} {counted}, but there are {actual}.")


def _typed(tensor: pb.ModelInferRequest.InferInputTensor, name: str) -> Any:  # noqa: ANN401 - a repeated field
    if [field.name for field, _ in tensor.contents.ListFields()] != [name]:
        message = f"{tensor.name} must be sent in contents.{name} only, or in raw_input_contents."
        raise InvalidInputError("inputs[0].contents", message)
    return getattr(tensor.contents, name)
