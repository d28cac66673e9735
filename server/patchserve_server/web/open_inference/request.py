"""From the body of an inference request to its message.

Every tensor becomes raw contents, whether it came as JSON or as binary data: so the response has raw contents too, and
each of its outputs can be written in either form.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.contract.tensors import join_bytes
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.open_inference.fields import a_list, a_shape, a_text, an_object, set_parameters
from patchserve_server.web.open_inference.json_text import parse_json
from patchserve_server.web.transcoding.base64_text import decode_base64

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
BINARY_SIZE: Final = "binary_data_size"
_PIXELS_DIMENSIONS: Final = 4
_FORMS: Final = {"UINT8": "B", "UINT16": "H"}


@dataclass(frozen=True, slots=True)
class InferBody:
    """An inference request, and which outputs it wants as binary data."""

    message: pb.ModelInferRequest
    binary_by_default: bool
    binary: dict[str, bool]  # of outputs that say it themselves

    def is_binary(self, output: str) -> bool:
        return self.binary.get(output, self.binary_by_default)


def infer_body(name: str, version: str, text: bytes, data: memoryview) -> InferBody:
    """The request in a body. Blocks for a while if it is large.

    Args:
        name: of the model, from the path.
        version: likewise; empty: any.
        text: JSON.
        data: the binary data of the inputs, in their order.

    Raises:
        InvalidInputError: it is not a request of the protocol.
    """
    fields = an_object(parse_json(text), "", ("id", "model_name", "parameters", "inputs", "outputs"))
    if fields.get("model_name", name) != name:  # clients of KServe repeat it
        raise InvalidInputError("model_name", "model_name is another one than in the path. Leave it out.")
    message = pb.ModelInferRequest(model_name=name, model_version=version, id=a_text(fields.get("id", ""), "id"))
    set_parameters(message, fields.get("parameters", {}), "parameters")
    for index, value in enumerate(a_list(fields.get("inputs"), "inputs")):
        data = _add_input(message, value, f"inputs[{index}]", data)
    if data:
        raise InvalidInputError("inputs", f"{len(data):,} bytes follow that no {BINARY_SIZE} of an input accounts for.")
    binary: dict[str, bool] = {}
    for index, value in enumerate(a_list(fields.get("outputs", []), "outputs")):
        _add_output(message, value, f"outputs[{index}]", binary)
    by_default = "binary_data_output" in message.parameters and message.parameters["binary_data_output"].bool_param
    return InferBody(message, by_default, binary)


def split_body(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body, and the binary data after it.

    Args:
        body: all of it.
        header_length: how many bytes of it are JSON, as the caller says it; None: all.

    Raises:
        InvalidInputError: this is not a length, or longer than the body.
    """
    if header_length is None:
        return body, memoryview(b"")
    if not (header_length.isascii() and header_length.isdecimal()) or len(header_length) > len(str(len(body))):
        length = -1
    else:
        length = int(header_length)
    if not 0 <= length <= len(body):
        message = f"{HEADER_LENGTH} must be the number of bytes of JSON: 0 to {len(body)}, the length of the body."
        raise InvalidInputError(HEADER_LENGTH, message)
    return body[:length], memoryview(body)[length:]


def _add_input(message: pb.ModelInferRequest, value: object, field: str, data: memoryview) -> memoryview:
    """Adds an input; returns the binary data that is left for the others."""
    fields = an_object(value, field, ("name", "datatype", "shape", "parameters", "data"))
    tensor = message.inputs.add(
        name=a_text(fields.get("name", ""), f"{field}.name"),
        datatype=a_text(fields.get("datatype", ""), f"{field}.datatype"),
        shape=a_shape(fields.get("shape"), f"{field}.shape"),
    )
    set_parameters(tensor, fields.get("parameters", {}), f"{field}.parameters")
    if BINARY_SIZE not in tensor.parameters:
        message.raw_input_contents.append(_raw(tensor.datatype, fields.get("data"), f"{field}.data"))
        return data
    if "data" in fields:
        raise InvalidInputError(f"{field}.data", f"{field} has data and {BINARY_SIZE}; send one of them.")
    size = tensor.parameters[BINARY_SIZE].int64_param
    if tensor.parameters[BINARY_SIZE].WhichOneof("parameter_choice") != "int64_param" or not 0 <= size <= len(data):
        text = (
            f"{field}.parameters.{BINARY_SIZE} must be how many of the {len(data)} bytes after the JSON are its own; "
            f"the header {HEADER_LENGTH} says where they begin."
        )
        raise InvalidInputError(f"{field}.parameters.{BINARY_SIZE}", text)
    message.raw_input_contents.append(bytes(data[:size]))
    return data[size:]


def _raw(datatype: str, data: object, field: str) -> bytes:
    """The raw contents of a tensor that came as JSON. Types that no input has are left to the check of the message."""
    match datatype:
        case "BYTES":
            return join_bytes(
                [_from_base64(each, f"{field}[{index}]") for index, each in enumerate(a_list(data, field))]
            )
        case "UINT8" | "UINT16":
            return _numbers(a_list(data, field), field, _PIXELS_DIMENSIONS, _FORMS[datatype])
        case _:
            return b""


def _from_base64(text: object, field: str) -> bytes:
    try:
        if isinstance(text, str):
            return decode_base64(memoryview(text.encode("ascii")))
    except ValueError:  # binascii.Error is one
        pass
    raise InvalidInputError(field, f"{field} must be the bytes of a file in base64.")


def _numbers(data: list[Any], field: str, dimensions: int, form: str) -> bytes:
    """The numbers of a list, or of lists in it, row by row."""
    if data and isinstance(data[0], list) and dimensions > 1:
        return b"".join([_numbers(a_list(row, field), field, dimensions - 1, form) for row in data])
    try:
        return struct.pack(f"<{len(data)}{form}", *data)
    except struct.error:
        largest = 2 ** (8 * struct.calcsize(form)) - 1
        message = f"{field} must have whole numbers of 0 to {largest}, in at most {_PIXELS_DIMENSIONS} levels."
        raise InvalidInputError(field, message) from None


def _add_output(message: pb.ModelInferRequest, value: object, field: str, binary: dict[str, bool]) -> None:
    fields = an_object(value, field, ("name", "parameters"))
    output = message.outputs.add(name=a_text(fields.get("name", ""), f"{field}.name"))
    set_parameters(output, fields.get("parameters", {}), f"{field}.parameters")
    if "binary_data" in output.parameters:
        binary[output.name] = output.parameters["binary_data"].bool_param
