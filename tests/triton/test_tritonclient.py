"""The published tritonclient with a real server.

`make test-triton` runs this in an environment of its own, since tritonclient wants an older protobuf than the server.
"""

from __future__ import annotations

import io
import os
import queue
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="make test-triton has an environment for it")

import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from fakes.parcel_server import PARCELS, REPO, running, server_command
from PIL import Image
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from patchserve_client import Client

GOOD, TORN = PARCELS / "test" / "good" / "000.jpg", PARCELS / "test" / "tear" / "000.jpg"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running() as bound:
        yield bound


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address) as connected:
        yield connected


def image_input(module: Any, *paths: Path) -> list[Any]:
    files = np.array([path.read_bytes() for path in paths], dtype=np.object_)
    tensor = module.InferInput("image", list(files.shape), "BYTES")
    tensor.set_data_from_numpy(files)
    return [tensor]


def pixels_input(module: Any, pixels: np.ndarray) -> list[Any]:
    tensor = module.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    return [tensor]


def outputs(module: Any, *names: str) -> list[Any]:
    return [module.InferRequestedOutput(name) for name in names]


def test_the_server_describes_itself(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("default")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata().name == "patchserve"
    about = client.get_model_metadata("default")
    assert [tensor.name for tensor in about.inputs] == ["image", "pixels"]
    assert client.is_model_ready("default", about.versions[0])


def test_a_batch_of_files_gives_the_scores_of_our_client(client: Any, address: str) -> None:
    result = client.infer("default", image_input(triton, GOOD, TORN), request_id="7")
    assert result.get_response().id == "7"
    assert result.as_numpy("is_anomalous").tolist() == [False, True]
    assert result.as_numpy("anomaly_map").shape == (2, 224, 224)
    assert result.as_numpy("anomaly_map").dtype == np.float32
    assert result.as_numpy("damage_percentage").dtype == np.float64
    assert Image.open(io.BytesIO(result.as_numpy("overlay")[1])).size == Image.open(TORN).size
    with Client(address) as ours:  # both clients in one process
        scores = [ours.infer(path).anomaly.score for path in (GOOD, TORN)]
    assert np.allclose(result.as_numpy("score"), scores, atol=1e-3)


def test_pixels_give_the_scores_of_files(client: Any) -> None:
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in (GOOD, TORN)])
    asked = outputs(triton, "score")
    from_pixels = client.infer("default", pixels_input(triton, pixels), outputs=asked)
    from_files = client.infer("default", image_input(triton, GOOD, TORN), outputs=asked)
    assert np.allclose(from_pixels.as_numpy("score"), from_files.as_numpy("score"), atol=1e-5)
    assert from_pixels.as_numpy("overlay") is None, "it was not asked for"
    alone = client.infer("default", pixels_input(triton, pixels[1]), outputs=asked)
    assert np.allclose(alone.as_numpy("score"), from_files.as_numpy("score")[1:], atol=1e-3)


def test_parameters_change_the_outputs(client: Any) -> None:
    def score(sensitivity: float) -> float:
        result = client.infer(
            "default",
            image_input(triton, TORN),
            outputs=outputs(triton, "score"),
            parameters={"sensitivity": sensitivity},
        )
        return float(result.as_numpy("score")[0])

    assert score(0.5) < score(1.0) < score(2.0)
    result = client.infer(
        "default",
        image_input(triton, TORN),
        outputs=outputs(triton, "overlay"),
        parameters={"overlay_format": "webp", "overlay_max_side_px": 64, "heatmap_scale": "calibrated"},
    )
    overlay = Image.open(io.BytesIO(result.as_numpy("overlay")[0]))
    assert (overlay.format, max(overlay.size)) == ("WEBP", 64)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ({"model_name": "none"}, "NOT_FOUND", 'no reference "none"'),
        ({"model_name": ""}, "INVALID_ARGUMENT", "there is no default"),
        ({"model_version": "1"}, "INVALID_ARGUMENT", "64 hexadecimal digits"),
        ({"model_version": "0" * 64}, "FAILED_PRECONDITION", "not at the expected"),
        ({"outputs": outputs(triton, "logits")}, "INVALID_ARGUMENT", "must be one of score"),
        ({"outputs": [triton.InferRequestedOutput("score", class_count=3)]}, "INVALID_ARGUMENT", "no classification"),
        ({"parameters": {"sensitivity": 11.0}}, "INVALID_ARGUMENT", "0.1 to 10"),
        ({"inputs": pixels_input(triton, np.zeros((2, 2, 4), np.uint8))}, "INVALID_ARGUMENT", "[height, width, 3]"),
    ],
)
def test_an_error_has_a_status_and_a_message(client: Any, arguments: dict[str, Any], status: str, says: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(**{"model_name": "default", "inputs": image_input(triton, GOOD), **arguments})
    assert caught.value.status() == f"StatusCode.{status}"
    assert says in caught.value.message()


def test_the_configuration_of_a_model_agrees_with_its_metadata(client: Any) -> None:
    config, about = client.get_model_config("default").config, client.get_model_metadata("default")
    assert (config.name, config.platform, config.backend) == ("default", about.platform, "patchserve")
    assert config.max_batch_size == 0
    for configured, described in zip([*config.input, *config.output], [*about.inputs, *about.outputs], strict=True):
        assert (configured.name, list(configured.dims)) == (described.name, list(described.shape))
    types = [model_config_pb2.DataType.Name(tensor.data_type) for tensor in config.input]
    assert types == ["TYPE_STRING", "TYPE_UINT8"]
    assert client.get_model_config("default", as_json=True)["config"]["output"][0]["data_type"] == "TYPE_FP32"
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_config("none")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_a_method_that_is_not_supported_is_unimplemented(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.get_inference_statistics("default")
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_a_stream_continues_after_an_error(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for model in ("default", "none", "default"):
        client.async_stream_infer(model, image_input(triton, TORN), outputs=outputs(triton, "is_anomalous"))
    results = [answers.get(timeout=60) for _ in range(3)]
    client.stop_stream()
    assert [result.as_numpy("is_anomalous").tolist() for result, error in results if error is None] == [[True], [True]]
    assert str(results[1][1]).startswith("NOT_FOUND (REFERENCE_NOT_FOUND)")


async def test_the_asyncio_client_works_too(address: str) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        result = await client.infer(
            "default", image_input(triton_aio, GOOD, TORN), outputs=outputs(triton_aio, "score")
        )
        assert result.as_numpy("score")[0] < 0.5 < result.as_numpy("score")[1]

        async def requests() -> Any:
            for _ in range(3):
                yield {"model_name": "default", "inputs": image_input(triton_aio, TORN)}

        found = [result.as_numpy("is_anomalous")[0] async for result, _ in client.stream_infer(requests())]
        assert found == [True] * 3


def test_tls_and_a_token_work(tmp_path: Path) -> None:
    server_python = Path(server_command()).parent / "python"
    search = os.pathsep.join(str(REPO / folder) for folder in ("tests", "server", "client", "protos/python"))
    token = subprocess.run(
        [server_python, REPO / "tests" / "triton" / "make_credentials.py", tmp_path],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    ).stdout.strip()
    files = ["--tls-cert", "server.pem", "--tls-key", "server.key", "--auth-tokens", "tokens"]
    flags = [str(tmp_path / each) if not each.startswith("--") else each for each in files]
    with running(*flags) as address:
        local = address.replace("127.0.0.1", "localhost")
        with triton.InferenceServerClient(local, ssl=True, root_certificates=str(tmp_path / "ca.pem")) as client:
            assert client.is_server_live(), "probes need no token"
            with pytest.raises(InferenceServerException) as caught:
                client.infer("default", image_input(triton, TORN))
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
            result = client.infer("default", image_input(triton, TORN), headers={"authorization": f"Bearer {token}"})
            assert result.as_numpy("is_anomalous").tolist() == [True]


def test_the_examples_of_the_page_run(address: str) -> None:
    page = (REPO / "docs" / "kserve.md").read_text()
    examples = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "tritonclient" in each]
    assert len(examples) == 3
    for example in examples:
        code = example.replace("localhost:50051", address)
        done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout
