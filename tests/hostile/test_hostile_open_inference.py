"""Bodies of the Open Inference Protocol that are damaged, lie about their sizes or want too much."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
from e2e.harness import connect
from e2e.in_process import running_server
from fakes.gray import gray_png
from hypothesis import given
from hypothesis import strategies as st

from patchserve.v1 import reference_pb2
from patchserve_server.contract.tensors import join_bytes
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.open_inference.json_text import MAX_ELEMENTS, parse_json, parsed_bytes
from patchserve_server.web.open_inference.request import infer_body, split_body

IMAGE: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1]}
DEEP: dict[str, Any] = {"name": "pixels", "datatype": "UINT16", "shape": [1, 1]}
PIXELS: dict[str, Any] = {"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 3]}


def read(content: object, data: bytes = b"") -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    infer_body("m", "", text, memoryview(data))


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        (b"", "", "not JSON"),
        (b"\xff\xfe[\0", "", "not JSON"),
        (b"[" * 100_000, "", "nested too deeply"),
        (b'{"inputs": [NaN]}', "", "NaN is not a value of JSON"),
        (b'{"inputs": [' + b"9" * 65 + b"]}", "", "a number has more than 64 characters"),
        (b'{"inputs": [0.' + b"9" * 63 + b"]}", "", "a number has more than 64 characters"),
        (b'{"id": "' + b"\\/" * 2**21 + b'"}', "", "1,048,576 backslashes"),
        ([], "", "must be a JSON object"),
        ({}, "inputs", "must be a JSON array"),
        ({"inputs": [IMAGE], "model": 1}, "", "has no field 'model'"),
        ({"inputs": [IMAGE], "model_name": "another"}, "model_name", "another one than in the path"),
        ({"inputs": [7]}, "inputs[0]", "must be a JSON object"),
        ({"inputs": [{**IMAGE, "name": 7}]}, "inputs[0].name", "must be a string"),
        ({"inputs": [{**IMAGE, "name": "x" * 2000}]}, "inputs[0].name", "at most 1024 bytes"),
        (b'{"inputs": [], "id": "\\ud800"}', "id", "half of a surrogate pair"),
        ({"inputs": [{**IMAGE, "shape": 1}]}, "inputs[0].shape", "must be a JSON array"),
        ({"inputs": [{**IMAGE, "shape": [True]}]}, "inputs[0].shape", "whole numbers"),
        ({"inputs": [{**IMAGE, "shape": [1.5]}]}, "inputs[0].shape", "whole numbers"),
        ({"inputs": [{**IMAGE, "shape": [2**63]}]}, "inputs[0].shape", "whole numbers"),
        ({"inputs": [{**IMAGE, "shape": [1] * 9}]}, "inputs[0].shape", "at most 8"),
        ({"inputs": [IMAGE]}, "inputs[0].data", "must be a JSON array"),
        ({"inputs": [{**IMAGE, "data": [7]}]}, "inputs[0].data[0]", "in base64"),
        ({"inputs": [{**IMAGE, "data": ["not base64!"]}]}, "inputs[0].data[0]", "in base64"),
        ({"inputs": [{**IMAGE, "data": ["é"]}]}, "inputs[0].data[0]", "in base64"),
        ({"inputs": [{**PIXELS, "data": [256]}]}, "inputs[0].data", "0 to 255"),
        ({"inputs": [{**PIXELS, "data": [-1]}]}, "inputs[0].data", "0 to 255"),
        ({"inputs": [{**PIXELS, "data": [1.0]}]}, "inputs[0].data", "whole numbers"),
        ({"inputs": [{**PIXELS, "data": ["1"]}]}, "inputs[0].data", "whole numbers"),
        ({"inputs": [{**PIXELS, "data": [[1], 2]}]}, "inputs[0].data", "must be a JSON array"),
        ({"inputs": [{**PIXELS, "data": [[[[[1]]]]]}]}, "inputs[0].data", "in at most 4 levels"),
        ({"inputs": [{**PIXELS, "data": {"a": 1}}]}, "inputs[0].data", "must be a JSON array"),
        ({"inputs": [{**DEEP, "data": [65_536]}]}, "inputs[0].data", "0 to 65535"),
        ({"inputs": [{**DEEP, "data": [-1]}]}, "inputs[0].data", "0 to 65535"),
        ({"inputs": [{**DEEP, "data": [1.5]}]}, "inputs[0].data", "whole numbers"),
        ({"inputs": [{**DEEP, "data": [[1], "2"]}]}, "inputs[0].data", "must be a JSON array"),
        ({"inputs": [], "parameters": []}, "parameters", "must be a JSON object"),
        ({"inputs": [], "parameters": {"a": None}}, "parameters", "a boolean, a number"),
        ({"inputs": [], "parameters": {"a": [1]}}, "parameters", "a boolean, a number"),
        ({"inputs": [], "parameters": {"a": 2**63}}, "parameters", "a number of 64 bits"),
        ({"inputs": [], "parameters": {"a": "x" * 2000}}, "parameters.a", "at most 1024 bytes"),
        (b'{"inputs": [], "parameters": {"\\ud800": 1}}', "parameters", "half of a surrogate pair"),
        ({"inputs": [], "outputs": {}}, "outputs", "must be a JSON array"),
        ({"inputs": [], "outputs": ["score"]}, "outputs[0]", "must be a JSON object"),
    ],
)
def test_a_body_that_is_not_a_request_is_an_error_of_the_field(content: object, field: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(content)
    assert caught.value.field == field
    assert says in caught.value.message


def sized(tensor: dict[str, Any], size: object, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{**tensor, "parameters": {"binary_data_size": size}, **fields}]}


@pytest.mark.parametrize(
    ("content", "data", "field"),
    [
        (sized(IMAGE, 11), b"0123456789", "inputs[0].parameters.binary_data_size"),
        (sized(IMAGE, -1), b"0123456789", "inputs[0].parameters.binary_data_size"),
        (sized(IMAGE, 2**62), b"0123456789", "inputs[0].parameters.binary_data_size"),
        (sized(IMAGE, "10"), b"0123456789", "inputs[0].parameters.binary_data_size"),
        (sized(IMAGE, 10.0), b"0123456789", "inputs[0].parameters.binary_data_size"),
        (sized(IMAGE, True), b"0123456789", "inputs[0].parameters.binary_data_size"),
        (sized(IMAGE, 9), b"0123456789", "inputs"),
        (sized(IMAGE, 0), b"0123456789", "inputs"),
        ({"inputs": [{**IMAGE, "data": []}]}, b"0123456789", "inputs"),
        (sized(IMAGE, 10, data=[]), b"0123456789", "inputs[0].data"),
        ({"inputs": [*sized(IMAGE, 6)["inputs"], *sized(IMAGE, 6)["inputs"]]}, b"0123456789", "inputs[1].parameters"),
    ],
)
def test_sizes_that_do_not_add_up_are_an_error(content: object, data: bytes, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(content, data)
    assert caught.value.field.startswith(field)


@pytest.mark.parametrize("length", ["-1", "4", "1e1", "", " 1", "0x1", "²", "9" * 100_000, "3.0", "+1"])
def test_a_length_of_the_header_that_is_none_is_an_error(length: str) -> None:
    with pytest.raises(InvalidInputError, match="must be the number of bytes of JSON: 0 to 3"):
        split_body(b"{}x", length)
    text, data = split_body(b"{}x", "2")
    assert (text, bytes(data)) == (b"{}", b"x")


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_random_bodies_are_requests_or_errors(text: bytes, data: bytes) -> None:
    with suppress(InvalidInputError):
        read(text, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["inputs", "name", "shape", "data", "datatype", "parameters"]), inner)
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["inputs", "outputs", "parameters", "id"]))
def test_random_json_is_a_request_or_an_error(value: object, field: str) -> None:
    with suppress(InvalidInputError):
        read({"inputs": [], field: value})


def test_a_text_of_many_elements_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidInputError, match="elements; at most 1,048,576"):
        parse_json(b"[" + b"[]," * MAX_ELEMENTS + b"[]]")
    assert parsed_bytes(b'{"data": [1, 2, 3]}') >= 4 * 64


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server(max_message_mib=1, max_image_mib=1) as server, connect(server.address) as stub:
        stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[gray_png(100)]))
        yield f"{server.http_url}/v2/models/default/infer"


def post(url: str, body: bytes, **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = requests.post(url, data=body, headers=named, timeout=30)
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return response.status_code, response.json()["error"]


def binary(raw: bytes, *, shape: tuple[int, ...] = (1,), **fields: Any) -> tuple[bytes, str]:
    """A body with one input, and the length of its JSON."""
    text = json.dumps(sized({**IMAGE, "shape": shape}, len(raw), **fields)).encode()
    return text + raw, str(len(text))


@pytest.mark.parametrize(
    ("raw", "shape", "says"),
    [
        (b"", (1,), "the bytes end after 0"),
        (b"\xff\xff\xff\xff", (1,), "should have 4294967295 bytes"),
        (join_bytes([b"a", b"b"]), (1,), "5 bytes follow"),
        (join_bytes([b"a"]), (2,), "the bytes end after 1"),
        (join_bytes([b"a"]), (2**62,), "takes 1 to"),
        (join_bytes([b"a"]), (-1,), "takes 1 to"),
        (join_bytes([b"a"]), (1, 1), r"must be [N]"),
        (join_bytes([b"a"]), (1,), "JPEG, PNG"),
    ],
)
def test_a_binary_tensor_that_does_not_fit_its_shape_is_refused(
    url: str, raw: bytes, shape: tuple[int, ...], says: str
) -> None:
    body, length = binary(raw, shape=shape)
    code, message = post(url, body, inference_header_content_length=length)
    assert code == 400
    assert says.lower() in message.lower()


def test_other_types_and_tensors_are_refused(url: str) -> None:
    raw = join_bytes([gray_png(1)])
    changes: list[dict[str, Any]] = [{"datatype": "FP32"}, {"name": "logits"}, {"datatype": "UINT8"}]
    for fields in changes:
        body, length = binary(raw, **fields)
        assert post(url, body, inference_header_content_length=length)[0] == 400


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(url: str) -> None:
    code, message = post(url, b"x" * (2**20 + 1))
    assert (code, "1,048,576 bytes" in message) == (413, True)


def test_a_compressed_body_is_refused(url: str) -> None:
    assert post(url, b"x", content_encoding="gzip") == (400, "Send the body as it is, not compressed.")


def test_what_triton_has_and_this_server_does_not_is_an_error_of_the_protocol(url: str) -> None:
    base = url.partition("/v2")[0]
    for path in ("/v2/repository/index", "/v2/systemsharedmemory/status", "/v2/models//infer", "/v2/models/a/b/c"):
        response = requests.post(base + path, timeout=30)
        assert response.status_code == 501
        assert response.json()["error"].startswith(f"This server does not support POST {path}")
    assert requests.get(url, timeout=30).status_code == 501


def test_the_server_still_works(url: str) -> None:
    body, length = binary(join_bytes([gray_png(1)]))
    response = requests.post(url, data=body, headers={"Inference-Header-Content-Length": length}, timeout=30)
    assert response.status_code == 200
    assert next(output["name"] for output in response.json()["outputs"]) == "score"
