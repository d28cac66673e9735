"""The published tritonclient with a real server: its clients for gRPC and for HTTP, in one set of tests.

`make test-triton` runs this in an environment of its own, since tritonclient wants an older protobuf than the server.
"""

from __future__ import annotations

import base64
import io
import os
import queue
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="make test-triton has an environment for it")

import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from fakes.parcel_server import PARCELS, REPO, running_with_http, server_command
from PIL import Image
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from patchserve_client import Client

GOOD, TORN = PARCELS / "test" / "good" / "000.jpg", PARCELS / "test" / "tear" / "000.jpg"
MODULES = {"grpc": tritonclient.grpc, "http": tritonclient.http}
AIO_MODULES = {"grpc": tritonclient.grpc.aio, "http": tritonclient.http.aio}
HTTP_CODES = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "UNIMPLEMENTED": 501}

Addresses = dict[str, str]


@pytest.fixture(scope="module")
def addresses() -> Iterator[Addresses]:
    with running_with_http("--http-port", "0") as (grpc_address, http_url):
        yield {"grpc": grpc_address, "http": http_url.removeprefix("http://")}


@pytest.fixture(params=MODULES)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def triton(protocol: str) -> Any:
    return MODULES[protocol]


@pytest.fixture
def client(triton: Any, protocol: str, addresses: Addresses) -> Iterator[Any]:
    with triton.InferenceServerClient(addresses[protocol]) as connected:
        yield connected


def image_input(module: Any, *paths: Path) -> list[Any]:
    files = np.array([path.read_bytes() for path in paths], dtype=np.object_)
    tensor = module.InferInput("image", list(files.shape), "BYTES")
    tensor.set_data_from_numpy(files)
    return [tensor]


def pixels_input(module: Any, pixels: np.ndarray, **how: bool) -> list[Any]:
    tensor = module.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, **how)
    return [tensor]


def outputs(module: Any, *names: str, **how: bool) -> list[Any]:
    return [module.InferRequestedOutput(name, **how) for name in names]


def plain(answer: Any) -> Any:
    """An answer as a dictionary: a message over gRPC, a dictionary over HTTP."""
    return answer if isinstance(answer, dict) else json_format(answer)


def json_format(message: Any) -> Any:
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - the older protobuf of this environment

    return MessageToDict(message, preserving_proto_field_name=True)


def expected_status(protocol: str, code: str) -> str:
    return f"StatusCode.{code}" if protocol == "grpc" else str(HTTP_CODES[code])


def test_the_server_describes_itself(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("default")
    assert not client.is_model_ready("none")
    assert plain(client.get_server_metadata())["name"] == "patchserve"
    about = plain(client.get_model_metadata("default"))
    assert [tensor["name"] for tensor in about["inputs"]] == ["image", "pixels"]
    assert client.is_model_ready("default", about["versions"][0])
    assert not client.is_model_ready("default", "0" * 64)


def test_a_batch_of_files_gives_the_scores_of_our_client(client: Any, triton: Any, addresses: Addresses) -> None:
    result = client.infer("default", image_input(triton, GOOD, TORN), request_id="7")
    assert plain(result.get_response())["id"] == "7"
    assert result.as_numpy("is_anomalous").tolist() == [False, True]
    assert result.as_numpy("anomaly_map").shape == (2, 224, 224)
    assert result.as_numpy("anomaly_map").dtype == np.float32
    assert result.as_numpy("damage_percentage").dtype == np.float64
    assert Image.open(io.BytesIO(result.as_numpy("overlay")[1])).size == Image.open(TORN).size
    with Client(addresses["grpc"]) as ours:  # both clients in one process
        scores = [ours.infer(path).anomaly.score for path in (GOOD, TORN)]
    assert np.allclose(result.as_numpy("score"), scores, atol=1e-3)


def test_pixels_give_the_scores_of_files(client: Any, triton: Any) -> None:
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in (GOOD, TORN)])
    asked = outputs(triton, "score")
    from_pixels = client.infer("default", pixels_input(triton, pixels), outputs=asked)
    from_files = client.infer("default", image_input(triton, GOOD, TORN), outputs=asked)
    assert np.allclose(from_pixels.as_numpy("score"), from_files.as_numpy("score"), atol=1e-5)
    assert from_pixels.as_numpy("overlay") is None, "it was not asked for"
    alone = client.infer("default", pixels_input(triton, pixels[1]), outputs=asked)
    assert np.allclose(alone.as_numpy("score"), from_files.as_numpy("score")[1:], atol=1e-3)


def test_parameters_change_the_outputs(client: Any, triton: Any) -> None:
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
        ({"model_version": "1"}, "INVALID_ARGUMENT", "64 hexadecimal digits"),
        ({"model_version": "0" * 64}, "FAILED_PRECONDITION", "not at the expected"),
        ({"outputs": [("logits", {})]}, "INVALID_ARGUMENT", "must be one of score"),
        ({"outputs": [("score", {"class_count": 3})]}, "INVALID_ARGUMENT", "no classification"),
        ({"parameters": {"sensitivity": 11.0}}, "INVALID_ARGUMENT", "0.1 to 10"),
        ({"parameters": {"sensitivty": 2.0}}, "INVALID_ARGUMENT", "sensitivty is not supported"),
        ({"timeout": 1000}, "INVALID_ARGUMENT", "timeout is not supported"),
        ({"inputs": np.zeros((2, 2, 4), np.uint8)}, "INVALID_ARGUMENT", "[height, width, 3]"),
    ],
)
def test_an_error_has_a_status_and_a_message(
    client: Any, protocol: str, arguments: dict[str, Any], status: str, says: str
) -> None:
    triton: Any = MODULES[protocol]
    given = {"model_name": "default", "inputs": image_input(triton, GOOD), **arguments}
    if "outputs" in arguments:
        given["outputs"] = [triton.InferRequestedOutput(name, **how) for name, how in arguments["outputs"]]
    if "inputs" in arguments:
        given["inputs"] = pixels_input(triton, arguments["inputs"])
    with pytest.raises(InferenceServerException) as caught:
        client.infer(**given)
    assert caught.value.status() == expected_status(protocol, status)
    assert says in caught.value.message()


def test_there_is_no_default_model(addresses: Addresses) -> None:
    with tritonclient.grpc.InferenceServerClient(addresses["grpc"]) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("", image_input(tritonclient.grpc, GOOD))
        assert "there is no default" in caught.value.message()


def test_the_configuration_of_a_model_agrees_with_its_metadata(client: Any, protocol: str) -> None:
    config = plain(client.get_model_config("default"))
    config = config if protocol == "http" else config["config"]
    about = plain(client.get_model_metadata("default"))
    assert (config["name"], config["platform"], config["backend"]) == ("default", about["platform"], "patchserve")
    assert config.get("max_batch_size", 0) == 0
    tensors = [*config["input"], *config["output"]]
    for configured, described in zip(tensors, [*about["inputs"], *about["outputs"]], strict=True):
        assert (configured["name"], configured["dims"]) == (described["name"], described["shape"])
    assert [tensor["data_type"] for tensor in config["input"]] == ["TYPE_STRING", "TYPE_UINT8"]
    assert {tensor["data_type"] for tensor in tensors} <= set(model_config_pb2.DataType.keys())
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_config("none")
    assert caught.value.status() == expected_status(protocol, "NOT_FOUND")


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("get_inference_statistics", ["default"]),
        ("get_model_repository_index", []),
        ("load_model", ["default"]),
        ("get_system_shared_memory_status", []),
        ("get_trace_settings", []),
    ],
)
def test_a_method_that_is_not_supported_is_unimplemented(
    client: Any, protocol: str, call: str, arguments: list[str]
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, call)(*arguments)
    assert caught.value.status() == expected_status(protocol, "UNIMPLEMENTED")


def test_a_stream_continues_after_an_error(addresses: Addresses) -> None:
    triton = tritonclient.grpc
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(addresses["grpc"]) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for model in ("default", "none", "default"):
            client.async_stream_infer(model, image_input(triton, TORN), outputs=outputs(triton, "is_anomalous"))
        results = [answers.get(timeout=60) for _ in range(3)]
        client.stop_stream()
    assert [result.as_numpy("is_anomalous").tolist() for result, error in results if error is None] == [[True], [True]]
    assert str(results[1][1]).startswith("NOT_FOUND (REFERENCE_NOT_FOUND)")


def test_json_and_binary_data_give_the_same_over_http(addresses: Addresses) -> None:
    triton = tritonclient.http
    names = ("score", "is_anomalous", "damage_percentage", "anomaly_map")
    pixels = np.asarray(Image.open(TORN).convert("RGB").resize((160, 120)))
    with triton.InferenceServerClient(addresses["http"]) as client:
        results = [
            client.infer(
                "default",
                pixels_input(triton, pixels, binary_data=sent),
                outputs=outputs(triton, *names, binary_data=asked),
            )
            for sent in (True, False)
            for asked in (True, False)
        ]
        for result in results:
            for name in names:
                np.testing.assert_allclose(result.as_numpy(name), results[0].as_numpy(name), atol=1e-3)
        mixed = [*outputs(triton, "overlay", binary_data=False), *outputs(triton, "score", "overlay")[:1]]
        result = client.infer("default", image_input(triton, TORN), outputs=mixed)
        overlay = Image.open(io.BytesIO(base64.b64decode(result.as_numpy("overlay")[0])))
        assert overlay.size == Image.open(TORN).size
        assert result.as_numpy("score").dtype == np.float32


def test_many_requests_at_once_over_http(addresses: Addresses) -> None:
    triton = tritonclient.http
    with triton.InferenceServerClient(addresses["http"], concurrency=4) as client:
        inputs, asked = image_input(triton, TORN), outputs(triton, "is_anomalous")
        pending = [client.async_infer("default", inputs, outputs=asked) for _ in range(8)]
        assert [each.get_result().as_numpy("is_anomalous").tolist() for each in pending] == [[True]] * 8


def test_a_compressed_request_is_refused_and_a_compressed_response_is_not_sent(addresses: Addresses) -> None:
    triton = tritonclient.http
    with triton.InferenceServerClient(addresses["http"]) as client:
        for algorithm in ("gzip", "deflate"):
            with pytest.raises(InferenceServerException) as caught:
                client.infer("default", image_input(triton, TORN), request_compression_algorithm=algorithm)
            assert "not compressed" in caught.value.message()
            result = client.infer("default", image_input(triton, TORN), response_compression_algorithm=algorithm)
            assert result.as_numpy("is_anomalous").tolist() == [True]


async def test_the_asyncio_client_works_too(protocol: str, addresses: Addresses) -> None:
    triton = AIO_MODULES[protocol]
    async with triton.InferenceServerClient(addresses[protocol]) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("default")
        assert not await client.is_model_ready("none")
        inputs = image_input(MODULES[protocol], GOOD, TORN)
        result = await client.infer("default", inputs, outputs=outputs(MODULES[protocol], "score"))
        assert result.as_numpy("score")[0] < 0.5 < result.as_numpy("score")[1]
        with pytest.raises(InferenceServerException) as caught:
            await client.infer("none", inputs)
        assert caught.value.status() == expected_status(protocol, "NOT_FOUND")


async def test_the_asyncio_client_streams(addresses: Addresses) -> None:
    triton = tritonclient.grpc.aio
    async with triton.InferenceServerClient(addresses["grpc"]) as client:

        async def requests() -> Any:
            for _ in range(3):
                yield {"model_name": "default", "inputs": image_input(triton, TORN)}

        found = [result.as_numpy("is_anomalous")[0] async for result, _ in client.stream_infer(requests())]
        assert found == [True] * 3


def secure_client(protocol: str, address: str, authority: Path) -> Any:
    if protocol == "grpc":
        return tritonclient.grpc.InferenceServerClient(address, ssl=True, root_certificates=str(authority))
    trusting = ssl.create_default_context(cafile=str(authority))
    return tritonclient.http.InferenceServerClient(address, ssl=True, ssl_context_factory=lambda: trusting)


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
    with running_with_http("--http-port", "0", *flags) as (grpc_address, http_url):
        for protocol, address in (("grpc", grpc_address), ("http", http_url.removeprefix("https://"))):
            triton = MODULES[protocol]
            local = address.replace("127.0.0.1", "localhost")
            with secure_client(protocol, local, tmp_path / "ca.pem") as client:
                assert client.is_server_live(), "probes need no token"
                with pytest.raises(InferenceServerException) as caught:
                    client.infer("default", image_input(triton, TORN))
                assert caught.value.status() == ("StatusCode.UNAUTHENTICATED" if protocol == "grpc" else "401")
                headers = {"authorization": f"Bearer {token}"}
                result = client.infer("default", image_input(triton, TORN), headers=headers)
                assert result.as_numpy("is_anomalous").tolist() == [True]


def test_the_examples_of_the_page_run(addresses: Addresses) -> None:
    page = (REPO / "docs" / "kserve.md").read_text()
    examples = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "tritonclient" in each]
    assert len(examples) == 4
    for example in examples:
        code = example.replace("localhost:50051", addresses["grpc"]).replace("localhost:8080", addresses["http"])
        done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout
