"""KServe's own clients, as published, with a real server: over gRPC, and over HTTP.

`make test-kserve` runs this in an environment of its own, since kserve needs an older protobuf and brings much more.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kserve", reason="make test-kserve has an environment for it")

import grpc
import httpx
from fakes.parcel_server import PARCELS, REPO, running_with_http
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from PIL import Image

GOOD, TORN = PARCELS / "test" / "good" / "000.jpg", PARCELS / "test" / "tear" / "000.jpg"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    """A server with the sample parcels as the reference `default`: its address of gRPC and its URL."""
    with running_with_http("--http-port", "0") as bound:
        yield bound


@pytest.fixture
def address(server: tuple[str, str]) -> str:
    return server[0]


@pytest.fixture
def url(server: tuple[str, str]) -> str:
    return server[1]


def rest_client() -> InferenceRESTClient:
    return InferenceRESTClient(RESTConfig(protocol="v2"))


def files_input(*paths: Path, binary: bool = True) -> InferInput:
    files = np.array([path.read_bytes() for path in paths], dtype=np.object_)
    if not binary:
        return InferInput("image", [len(paths)], "BYTES", data=list(files))
    tensor = InferInput("image", [len(paths)], "BYTES")
    tensor.set_data_from_numpy(files, binary_data=True)
    return tensor


def pixels_input(path: Path) -> InferInput:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    tensor = InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=True)
    return tensor


def request(*inputs: InferInput, **parameters: Any) -> InferRequest:
    outputs = [RequestedOutput(name, {"binary_data": True}) for name in ("score", "is_anomalous")]
    return InferRequest("default", list(inputs), request_id="7", request_outputs=outputs, parameters=parameters or None)


async def test_the_server_and_its_model_are_ready(address: str) -> None:
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("default")
        assert not await client.is_model_ready("none")


async def test_binary_data_is_accepted_and_answered(address: str) -> None:
    async with InferenceGRPCClient(address) as client:
        response = await client.infer(request(files_input(GOOD, TORN)))
    assert response.id == "7"
    by_name = {output.name: output.as_numpy() for output in response.outputs}
    assert by_name["is_anomalous"].tolist() == [False, True]
    assert by_name["score"].shape == (2,)


async def test_typed_contents_and_pixels_give_the_scores_of_binary_files(address: str) -> None:
    async with InferenceGRPCClient(address) as client:
        responses = [
            await client.infer(request(tensor))
            for tensor in (files_input(TORN), files_input(TORN, binary=False), pixels_input(TORN))
        ]
    scores = [response.outputs[0].as_numpy()[0] for response in responses]
    assert np.allclose(scores, scores[0], atol=1e-3)


async def test_parameters_reach_the_server(address: str) -> None:
    async with InferenceGRPCClient(address) as client:
        usual, strict = [
            (await client.infer(request(files_input(TORN), **parameters))).outputs[0].as_numpy()[0]
            for parameters in ({}, {"sensitivity": 2, "binary_data_output": True})
        ]
        assert strict > usual
        with pytest.raises(grpc.RpcError) as caught:
            await client.infer(request(files_input(TORN), sensitivty=2))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "sensitivty is not supported" in str(caught.value.details())


async def test_the_server_and_its_model_are_ready_over_http(url: str) -> None:
    client = rest_client()
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "default")
    assert not await client.is_model_ready(url, "none")


async def test_http_gives_the_scores_of_grpc(address: str, url: str) -> None:
    async with InferenceGRPCClient(address) as client:
        expected = (await client.infer(request(files_input(GOOD, TORN)))).outputs[0].as_numpy()
    client = rest_client()
    for parameters in ({}, {"binary_data_output": True}):
        response = await client.infer(url, request(files_input(GOOD, TORN), **parameters), model_name="default")
        by_name = {output.name: output.as_numpy() for output in response.outputs}
        assert response.id == "7"
        assert by_name["is_anomalous"].tolist() == [False, True]
        assert np.allclose(by_name["score"], expected, atol=1e-3)
    response = await client.infer(url, request(pixels_input(TORN)), model_name="default")
    assert np.allclose(response.outputs[0].as_numpy(), expected[1:], atol=1e-3)


async def test_an_error_over_http_says_what_is_wrong(url: str) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await rest_client().infer(url, request(files_input(TORN), sensitivty=2), model_name="default")
    assert caught.value.response.status_code == 400
    assert "sensitivty is not supported" in str(caught.value)


def test_the_example_of_the_page_runs(address: str) -> None:
    page = (REPO / "docs" / "kserve.md").read_text()
    (example,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "kserve" in each]
    code = example.replace("localhost:50051", address)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[0\.\d+\]\n", done.stdout.splitlines(keepends=True)[-1])
