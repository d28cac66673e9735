"""The Open Inference Protocol to the domain and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from google.rpc import code_pb2, error_details_pb2

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.v1 import inference_pb2
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import Inspection, OutputOptions
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.rpc.convert.enums import FORMATS, SCALES
from patchserve_server.rpc.convert.requests import expected_revision, output_options, reference_id
from patchserve_server.rpc.convert.tensors import INPUTS, OUTPUTS, join_bytes, no_parameters, sent_images
from patchserve_server.rpc.status import status_of

PLATFORM: Final = "patchcore_safetensors"
_MAX_UINT32: Final = 2**32 - 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A ModelInferRequest, checked."""

    reference_id: ReferenceId
    expected_revision: Revision | None
    images: Sequence[SentImage]
    options: OutputOptions
    outputs: tuple[str, ...]


def model(name: str, version: str, prefix: str = "") -> tuple[ReferenceId, Revision | None]:
    """The reference's id and the expected revision, None for any.

    Raises:
        InvalidInputError: they have not the form of such.
    """
    if not name:
        raise InvalidInputError(f"{prefix}name", f"{prefix}name is the id of a reference; there is no default.")
    return reference_id(name, f"{prefix}name"), expected_revision(version, f"{prefix}version")


def infer_request(request: pb.ModelInferRequest, max_images: int) -> Asked:
    """Blocks for a while where pixels come in typed contents.

    Raises:
        InvalidInputError: a field, a tensor or a parameter is none that is taken.
    """
    name, revision = model(request.model_name, request.model_version, "model_")
    outputs = _outputs(request)
    options = _options(request.parameters, outputs)
    return Asked(name, revision, sent_images(request, max_images), options, outputs)


def _outputs(request: pb.ModelInferRequest) -> tuple[str, ...]:
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in OUTPUTS:
            raise InvalidInputError(f"{field}.name", f"{field}.name is one of {', '.join(OUTPUTS)}.")
        if index >= len(OUTPUTS) or output.name in [other.name for other in request.outputs[:index]]:
            raise InvalidInputError(f"{field}.name", f"{output.name} is asked for twice.")
        no_parameters(output.parameters, f"{field}.parameters")
    return tuple(output.name for output in request.outputs) or tuple(OUTPUTS)


def _options(parameters: Mapping[str, pb.InferParameter], outputs: tuple[str, ...]) -> OutputOptions:
    """Goes by way of our own message, whose checks are the same."""
    overlay = "overlay" in outputs
    message = inference_pb2.OutputOptions(overlay=overlay, score_map="anomaly_map" in outputs)
    if not overlay:
        message.max_regions = 0  # they would only be outlined
    for key, parameter in parameters.items():
        value = getattr(parameter, parameter.WhichOneof("parameter_choice") or "", None)
        match key:
            case "sensitivity":
                message.sensitivity = _number(value)
            case "heatmap_scale":
                message.heatmap_scale = _choice(SCALES, key, value)
            case "overlay_format":
                message.overlay_format = _choice(FORMATS, key, value)
            case "overlay_max_side_px":
                message.overlay_max_side_px = _side_px(value)
            case _:
                known = "sensitivity, heatmap_scale, overlay_format and overlay_max_side_px"
                text = f"A parameter is none that this server knows; known are {known}. Deadlines are gRPC's."
                raise InvalidInputError("parameters", text)
    return output_options(message, "parameters")


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise InvalidInputError("parameters.sensitivity", "parameters.sensitivity is a number: 0.1 to 10.")


def _side_px(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return min(max(value, 1), _MAX_UINT32) if value else 0
    raise InvalidInputError("parameters.overlay_max_side_px", "parameters.overlay_max_side_px is a whole number.")


def _choice(table: Mapping[T, object], key: str, value: object) -> T:
    names = {getattr(meaning, "value", None): number for number, meaning in table.items() if number}
    if value not in names:
        text = f"parameters.{key} is one of {', '.join(map(str, names))}."
        raise InvalidInputError(f"parameters.{key}", text)
    return names[value]


def infer_response(request: pb.ModelInferRequest, asked: Asked, found: Sequence[Inspection]) -> pb.ModelInferResponse:
    """Raw contents where the request had such, typed ones otherwise. Blocks for a while with typed maps."""
    response = pb.ModelInferResponse(
        model_name=asked.reference_id, model_version=found[0].reference_revision, id=request.id
    )
    for name in asked.outputs:
        kind = OUTPUTS[name]
        values = [kind.value(inspection) for inspection in found]
        array = np.asarray(values, kind.dtype) if kind.dtype else None
        shape = (len(found),) if array is None else array.shape
        tensor = response.outputs.add(name=name, datatype=kind.datatype, shape=shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(join_bytes(values) if array is None else array.tobytes())
        else:
            getattr(tensor.contents, kind.contents).extend(values if array is None else array.ravel().tolist())
    return response


def stream_error(request: pb.ModelInferRequest, error: Exception, request_id: str) -> pb.ModelStreamInferResponse:
    """The standard has a text only: code and reason lead it."""
    status = status_of(error, request_id)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return pb.ModelStreamInferResponse(
        error_message=f"{code_pb2.Code.Name(status.code)} ({info.reason}): {status.message}",
        infer_response=pb.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id
        ),
    )


def metadata(info: ReferenceInfo, map_side_px: int) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    shapes = {"anomaly_map": [-1, map_side_px, map_side_px]}
    return pb.ModelMetadataResponse(
        name=info.reference_id,
        versions=[info.revision],
        platform=PLATFORM,
        inputs=[tensor(name=name, datatype=kind.datatype, shape=kind.shape) for name, kind in INPUTS.items()],
        outputs=[
            tensor(name=name, datatype=kind.datatype, shape=shapes.get(name, [-1])) for name, kind in OUTPUTS.items()
        ],
    )
