"""Converts the Open Inference Protocol to domain values, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from google.rpc import code_pb2, error_details_pb2

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.v1 import inference_pb2
from patchserve_server.contract.enums import FORMATS, SCALES
from patchserve_server.contract.neutral_parameters import (
    OUTPUT_PARAMETERS,
    REQUEST_PARAMETERS,
    Value,
    check_parameters,
    value_of,
)
from patchserve_server.contract.pixel_formats import descriptions, pixel_format
from patchserve_server.contract.requests import expected_revision, in_field, output_options, reference_id
from patchserve_server.contract.status import status_of
from patchserve_server.contract.tensors import INPUTS, OUTPUTS, contents_of, join_bytes
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import Inspection, OutputOptions
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision

PLATFORM: Final = "patchcore_safetensors"
_MAX_UINT32: Final = 2**32 - 1

_TYPES: Final = {
    "BOOL": pb.TYPE_BOOL,
    "UINT8": pb.TYPE_UINT8,
    "FP32": pb.TYPE_FP32,
    "FP64": pb.TYPE_FP64,
    "BYTES": pb.TYPE_STRING,
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A checked ModelInferRequest."""

    reference_id: ReferenceId
    expected_revision: Revision | None
    images: Sequence[SentImage]
    options: OutputOptions
    outputs: tuple[str, ...]


def model(name: str, version: str, prefix: str = "") -> tuple[ReferenceId, Revision | None]:
    """The reference id and the expected revision; None accepts any revision.

    Raises:
        InvalidInputError: one of them is malformed.
    """
    if not name:
        raise InvalidInputError(f"{prefix}name", f"{prefix}name must be the id of a reference; there is no default.")
    return reference_id(name, f"{prefix}name"), expected_revision(version, f"{prefix}version")


def infer_request(request: pb.ModelInferRequest, max_images: int) -> Batch:
    """Checks and converts a request. Blocks for a while if pixels are sent as typed contents.

    Raises:
        InvalidInputError: a field, a tensor or a parameter is invalid.
    """
    name, revision = model(request.model_name, request.model_version, "model_")
    outputs = _outputs(request)
    options = _options(request.parameters, outputs)
    contents = contents_of(request, max_images, pixel_format(_parameter(request, "pixel_format")))
    white_level = _white_level(_parameter(request, "white_level"))
    with in_field("parameters"):
        images = [SentImage(content, white_level) for content in contents]
    return Batch(name, revision, images, options, outputs)


def _parameter(request: pb.ModelInferRequest, name: str) -> Value:
    """The value of a parameter of a request; None if it is not there."""
    return value_of(request.parameters[name]) if name in request.parameters else None


def _outputs(request: pb.ModelInferRequest) -> tuple[str, ...]:
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in OUTPUTS:
            raise InvalidInputError(f"{field}.name", f"{field}.name must be one of {', '.join(OUTPUTS)}.")
        if index >= len(OUTPUTS) or output.name in [other.name for other in request.outputs[:index]]:
            raise InvalidInputError(f"{field}.name", f"{output.name} is requested twice.")
        check_parameters(output.parameters, OUTPUT_PARAMETERS, f"{field}.parameters")
    return tuple(output.name for output in request.outputs) or tuple(OUTPUTS)


def _options(parameters: Mapping[str, pb.InferParameter], outputs: tuple[str, ...]) -> OutputOptions:
    """The options, built through our own message so that the checks are the same."""
    overlay = "overlay" in outputs
    message = inference_pb2.OutputOptions(overlay=overlay, score_map="anomaly_map" in outputs)
    if not overlay:
        message.max_regions = 0  # regions are only drawn into the overlay
    for key, parameter in parameters.items():
        value = value_of(parameter)
        match key:
            case "sensitivity":
                message.sensitivity = _number(value)
            case "heatmap_scale":
                message.heatmap_scale = _choice(SCALES, key, value)
            case "overlay_format":
                message.overlay_format = _choice(FORMATS, key, value)
            case "overlay_max_side_px":
                message.overlay_max_side_px = _side_px(value)
            case "pixel_format" | "white_level":
                pass  # of the images
            case _ if key not in REQUEST_PARAMETERS or not REQUEST_PARAMETERS[key](value):
                supported = "sensitivity, heatmap_scale, overlay_format, overlay_max_side_px, pixel_format, white_level"
                text = f"{key[:40]} is not supported; {supported} are. For a time limit, set gRPC's deadline."
                raise InvalidInputError("parameters", text)
    return output_options(message, "parameters")


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise InvalidInputError("parameters.sensitivity", "parameters.sensitivity must be a number: 0.1 to 10.")


def _white_level(value: Value) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidInputError("parameters.white_level", "parameters.white_level must be a whole number: 1 to 65535.")


def _side_px(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return min(max(value, 1), _MAX_UINT32) if value else 0
    field = "parameters.overlay_max_side_px"
    raise InvalidInputError(field, f"{field} must be a whole number.")


def _choice(values: Mapping[T, object], key: str, value: object) -> T:
    numbers = {getattr(domain, "value", None): number for number, domain in values.items() if number}
    if value not in numbers:
        field = f"parameters.{key}"
        raise InvalidInputError(field, f"{field} must be one of {', '.join(map(str, numbers))}.")
    return numbers[value]


def infer_response(
    request: pb.ModelInferRequest, batch: Batch, inspections: Sequence[Inspection]
) -> pb.ModelInferResponse:
    """The response, with raw contents if the request had raw contents. Blocks for a while with typed maps."""
    response = pb.ModelInferResponse(
        model_name=batch.reference_id, model_version=inspections[0].reference_revision, id=request.id
    )
    for name in batch.outputs:
        output = OUTPUTS[name]
        values = [output.value(inspection) for inspection in inspections]
        array = np.asarray(values, output.dtype) if output.dtype else None
        shape = (len(inspections),) if array is None else array.shape
        tensor = response.outputs.add(name=name, datatype=output.datatype, shape=shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(join_bytes(values) if array is None else array.tobytes())
        else:
            getattr(tensor.contents, output.contents).extend(values if array is None else array.ravel().tolist())
    return response


def stream_error(request: pb.ModelInferRequest, error: Exception, request_id: str) -> pb.ModelStreamInferResponse:
    """The message of an error. The protocol has only a text for it; the text begins with code and reason."""
    status = status_of(error, request_id)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return pb.ModelStreamInferResponse(
        error_message=f"{code_pb2.Code.Name(status.code)} ({info.reason}): {status.message}",
        infer_response=pb.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id
        ),
    )


def metadata(info: ReferenceInfo) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    map_shape = [-1, *info.input_shape.map_shape.sides_px]
    return pb.ModelMetadataResponse(
        name=info.reference_id,
        versions=[info.revision],
        platform=PLATFORM,
        inputs=[tensor(name=name, datatype=input_.datatype, shape=input_.shape) for name, input_ in INPUTS.items()],
        outputs=[
            tensor(name=name, datatype=output.datatype, shape=map_shape if name == "anomaly_map" else [-1])
            for name, output in OUTPUTS.items()
        ],
        parameters={name: pb.InferParameter(string_param=text) for name, text in descriptions().items()},
    )


def config(info: ReferenceInfo) -> pb.ModelConfigResponse:
    """The same as `metadata`, as Triton's tools want it."""
    about = metadata(info)
    return pb.ModelConfigResponse(
        config=pb.ModelConfig(
            name=about.name,
            platform=about.platform,
            backend="patchserve",
            max_batch_size=0,  # the shapes contain the number of images
            input=[
                pb.ModelInput(name=tensor.name, data_type=_TYPES[tensor.datatype], dims=tensor.shape, optional=True)
                for tensor in about.inputs
            ],
            output=[
                pb.ModelOutput(name=tensor.name, data_type=_TYPES[tensor.datatype], dims=tensor.shape)
                for tensor in about.outputs
            ],
            parameters={name: pb.ModelParameter(string_value=text) for name, text in descriptions().items()},
        )
    )
