"""KServe's own client, as published, with a real server.

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
from fakes.parcel_server import PARCELS, REPO, running
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput
from PIL import Image

GOOD, TORN = PARCELS / "test" / "good" / "000.jpg", PARCELS / "test" / "tear" / "000.jpg"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server with the sample parcels as the reference `default`."""
    with running() as bound:
        yield bound


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


def test_the_example_of_the_page_runs(address: str) -> None:
    page = (REPO / "docs" / "kserve.md").read_text()
    (example,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "kserve" in each]
    code = example.replace("localhost:50051", address)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[0\.\d+\]\n", done.stdout.splitlines(keepends=True)[-1])
