"""Requests of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.contract.tensors import join_bytes

Requested = pb.ModelInferRequest.InferRequestedOutputTensor


def request_of_files(
    model: str, *files: bytes, outputs: Sequence[str] = (), typed: bool = False
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, outputs=[Requested(name=name) for name in outputs])
    request.inputs.add(name="image", datatype="BYTES", shape=[len(files)])
    if typed:
        request.inputs[0].contents.bytes_contents.extend(files)
    else:
        request.raw_input_contents.append(join_bytes(files))
    return request


def request_of_pixels(
    model: str, pixels: np.ndarray, outputs: Sequence[str] = (), *, typed: bool = False, pixel_format: str = ""
) -> pb.ModelInferRequest:
    """pixels: (H, W, 3) or (N, H, W, 3) uint8, unless the format says otherwise."""
    request = pb.ModelInferRequest(model_name=model, outputs=[Requested(name=name) for name in outputs])
    request.inputs.add(name="pixels", datatype=pixels.dtype.name.upper(), shape=pixels.shape)
    if pixel_format:
        request.parameters["pixel_format"].string_param = pixel_format
    if typed:
        request.inputs[0].contents.uint_contents.extend(pixels.ravel().tolist())
    else:
        request.raw_input_contents.append(pixels.tobytes())
    return request


def values(response: pb.ModelInferResponse, name: str) -> np.ndarray | list[bytes]:
    """The values of one output, from its raw or its typed contents."""
    index = [output.name for output in response.outputs].index(name)
    output = response.outputs[index]
    dtype = {"FP32": "<f4", "FP64": "<f8", "BOOL": "?", "BYTES": ""}[output.datatype]
    if response.raw_output_contents:
        raw = response.raw_output_contents[index]
        return np.frombuffer(raw, dtype).reshape(output.shape) if dtype else _elements(raw)
    ((_, contents),) = output.contents.ListFields()
    return np.array(contents, dtype).reshape(output.shape) if dtype else list(contents)


def _elements(raw: bytes) -> list[bytes]:
    elements = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        elements.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return elements
