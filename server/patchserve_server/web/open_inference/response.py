"""From the message of an inference response to its body: JSON, and binary data where the caller asked for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.contract.neutral_parameters import value_of
from patchserve_server.contract.response_size import check_size
from patchserve_server.contract.tensors import OUTPUTS, split_bytes
from patchserve_server.web.open_inference.request import BINARY_SIZE, InferBody

_CHUNK: Final = 2**14  # values that are written at a time, so that other threads can run in between


def infer_content(response: pb.ModelInferResponse, request: InferBody, max_bytes: int) -> tuple[bytes, int | None]:
    """The body, and how many bytes of it are JSON; None: all. Blocks for a while with maps in JSON.

    Raises:
        ResponseTooLargeError: it has more than `max_bytes`.
    """
    tensors: list[str] = []
    blocks: list[bytes] = []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        is_binary = request.is_binary(output.name)
        tensors.append(_tensor(output, raw, is_binary=is_binary))
        if is_binary:
            blocks.append(raw)
        check_size(sum(map(len, tensors)) + sum(map(len, blocks)), max_bytes, "outputs")
    about = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        about["id"] = response.id
    text = f'{json.dumps(about)[:-1]}, "outputs": [{", ".join(tensors)}]}}'.encode()
    return b"".join([text, *blocks]), len(text) if blocks else None


def _tensor(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes, *, is_binary: bool) -> str:
    about: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
    if is_binary:
        return json.dumps({**about, "parameters": {BINARY_SIZE: len(raw)}})
    return f'{json.dumps(about)[:-1]}, "data": [{", ".join(_values(output, raw))}]}}'


def _values(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes) -> Iterator[str]:
    """The values as JSON, some at a time."""
    if not (dtype := OUTPUTS[output.name].dtype):
        for element in split_bytes(raw, output.shape[0]):
            yield f'"{base64.b64encode(element).decode()}"'
        return
    values = np.frombuffer(raw, dtype)
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK].tolist()
        # JSON has no NaN, which is outside of the region of interest; NumPy reads null as NaN.
        yield json.dumps([None if value != value else value for value in chunk])[1:-1]  # noqa: PLR0124


def as_json(message: Message) -> dict[str, Any]:
    """All fields of a message; 64-bit numbers as numbers, which protobuf's JSON writes as strings."""
    return {field.name: _value(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _value(field: Any, value: Any) -> Any:  # noqa: ANN401 - a FieldDescriptor of either implementation, any type
    if isinstance(value, Mapping):
        each_field = field.message_type.fields_by_name["value"]
        return {name: _single(each_field, each) for name, each in sorted(value.items())}
    if field.is_repeated:
        return [_single(field, each) for each in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, pb.InferParameter):
        return value_of(value)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return as_json(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name
    return value
