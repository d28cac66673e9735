"""Bodies of the Open Inference Protocol: JSON and binary data give the same message, and its response goes back."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from fakes.tensors import values
from hypothesis import given
from hypothesis import strategies as st

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.contract.tensors import OUTPUTS, join_bytes
from patchserve_server.domain.errors import ResponseTooLargeError
from patchserve_server.web.open_inference.request import InferBody, infer_body
from patchserve_server.web.open_inference.response import as_json, infer_content

FILES = st.lists(st.binary(max_size=50), max_size=4)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


def body_of(name: str, datatype: str, shape: list[int], raw: bytes | None, **fields: Any) -> tuple[bytes, memoryview]:
    """The JSON and the binary data of a request with one input."""
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if raw is not None:
        tensor["parameters"] = {"binary_data_size": len(raw)}
    tensor |= fields
    return json.dumps({"inputs": [tensor]}).encode(), memoryview(raw or b"")


@given(FILES)
def test_files_in_base64_and_as_binary_data_are_the_same(files: list[bytes]) -> None:
    raw = join_bytes(files)
    binary = infer_body("m", "", *body_of("image", "BYTES", [len(files)], raw)).message
    data = [base64.b64encode(each).decode() for each in files]
    text = infer_body("m", "", *body_of("image", "BYTES", [len(files)], None, data=data)).message
    assert list(binary.raw_input_contents) == list(text.raw_input_contents) == [raw]


@given(SHAPES, st.integers(0, 2**32 - 1), st.booleans())
def test_pixels_as_numbers_and_as_binary_data_are_the_same(shape: tuple[int, int, int], seed: int, flat: bool) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    data = pixels.ravel().tolist() if flat else pixels.tolist()
    text = infer_body("m", "", *body_of("pixels", "UINT8", list(pixels.shape), None, data=data)).message
    binary = infer_body("m", "", *body_of("pixels", "UINT8", list(pixels.shape), pixels.tobytes())).message
    assert text.raw_input_contents == binary.raw_input_contents
    assert list(text.inputs[0].shape) == list(pixels.shape)


@given(st.dictionaries(st.text("abcdef_", min_size=1, max_size=8), SCALARS, max_size=5))
def test_parameters_keep_their_type_and_value(parameters: dict[str, Any]) -> None:
    text = json.dumps({"parameters": parameters, "inputs": []}).encode()
    message = infer_body("m", "", text, memoryview(b"")).message
    found = {name: getattr(each, str(each.WhichOneof("parameter_choice"))) for name, each in message.parameters.items()}
    assert found == parameters
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in parameters.items()
    }


def response_of(count: int, map_: np.ndarray) -> pb.ModelInferResponse:
    rows = {
        "score": np.linspace(0, 1, count, dtype="<f4").tobytes(),
        "is_anomalous": np.array([index % 2 == 0 for index in range(count)]).tobytes(),
        "damage_percentage": np.linspace(0, 100, count).tobytes(),
        "anomaly_map": np.stack([map_] * count).astype("<f4").tobytes(),
        "overlay": join_bytes([bytes([index]) * index for index in range(count)]),
    }
    response = pb.ModelInferResponse(model_name="m", model_version="v", id="7")
    for name, raw in rows.items():
        shape = (count, *map_.shape) if name == "anomaly_map" else (count,)
        response.outputs.add(name=name, datatype=OUTPUTS[name].datatype, shape=shape)
        response.raw_output_contents.append(raw)
    return response


@given(st.integers(1, 4), st.sets(st.sampled_from(sorted(OUTPUTS))), st.booleans())
def test_every_output_comes_back_in_the_form_that_was_asked_for(count: int, named: set[str], by_default: bool) -> None:
    map_ = np.array([[0.1, math.nan], [2.5, -1]], np.float32)
    response = response_of(count, map_)
    request = InferBody(pb.ModelInferRequest(), by_default, dict.fromkeys(named, not by_default))
    content, json_length = infer_content(response, request, 2**20)
    answer = json.loads(content[:json_length])
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "v", "7")
    start = json_length or len(content)
    for output in answer["outputs"]:
        expected = values(response, output["name"])
        assert ("data" in output) is not request.is_binary(output["name"])
        if "data" in output:
            found = (
                [base64.b64decode(each) for each in output["data"]]
                if output["datatype"] == "BYTES"
                else np.array(output["data"], expected.dtype).reshape(output["shape"])  # type: ignore[union-attr]
            )
            np.testing.assert_array_equal(found, expected)
        else:
            size = output["parameters"]["binary_data_size"]
            index = [each.name for each in response.outputs].index(output["name"])
            assert content[start : start + size] == response.raw_output_contents[index]
            start += size
    assert start == len(content), "nothing follows"


def test_a_response_over_the_limit_is_an_error() -> None:
    response = response_of(3, np.zeros((16, 16), np.float32))
    for binary in (True, False):
        with pytest.raises(ResponseTooLargeError, match="at most 2,000 are sent"):
            infer_content(response, InferBody(pb.ModelInferRequest(), binary, {}), 2000)


def test_large_maps_are_written_in_parts_that_fit_together() -> None:
    map_ = np.random.default_rng(1).random((300, 300), np.float32)
    content, _ = infer_content(response_of(2, map_), InferBody(pb.ModelInferRequest(), False, {}), 2**26)
    (found,) = [output for output in json.loads(content)["outputs"] if output["name"] == "anomaly_map"]
    np.testing.assert_array_equal(np.array(found["data"], np.float32), np.stack([map_, map_]).ravel())


def test_64_bit_numbers_of_a_message_stay_numbers() -> None:
    config = pb.ModelConfig(name="m", input=[pb.ModelInput(name="image", data_type=pb.TYPE_STRING, dims=[-1])])
    found = as_json(config)
    assert found["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": [-1], "optional": False}]
    assert found["max_batch_size"] == 0
