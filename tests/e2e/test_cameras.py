"""Images of a camera with 12 bits, through every way into the server: each keeps its levels."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from e2e.harness import connect, refusal
from e2e.in_process import RunningServer, running_server
from e2e.socket_stub import open_stream
from e2e.streaming import frame, results
from fakes.deep_images import png16, tiff16
from fakes.gray import gray_png
from fakes.tensors import request_of_files, request_of_pixels, values
from typer.testing import CliRunner

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.kserve import open_inference_pb2_grpc
from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_client import AsyncClient, Client, FailedPrecondition, InvalidArgument
from patchserve_client.cli import app

LEVEL, REFERENCE_LEVEL = 160, 100  # of 255
SCORE = LEVEL - REFERENCE_LEVEL  # as the fake detector counts
WHITE = 4095


def twelve_bits(level: int) -> np.ndarray:
    """(H, W) uint16: the values of a camera that a level of 8 bits stands for."""
    return np.full((20, 24), round(level * WHITE / 255), np.uint16)


IMAGE = png16(twelve_bits(LEVEL))
REFERENCE_IMAGE = png16(twelve_bits(REFERENCE_LEVEL))


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """With the reference `plain`, which has no white level, and `camera`, which has one."""
    with running_server() as running, connect(running.address) as stub:
        for reference_id, image, white in (
            ("plain", gray_png(REFERENCE_LEVEL), None),
            ("camera", REFERENCE_IMAGE, WHITE),
        ):
            request = reference_pb2.LoadReferenceRequest(reference_id=reference_id, images=[image], white_level=white)
            loaded = stub.LoadReference(request).reference
            assert loaded.HasField("white_level") is (white is not None)
            assert loaded.white_level == (white or 0)
        yield running


@pytest.mark.parametrize("image", [IMAGE, tiff16(np.dstack([twelve_bits(LEVEL)] * 3)), gray_png(LEVEL)])
def test_the_white_level_is_that_of_the_request_or_else_of_the_reference(server: RunningServer, image: bytes) -> None:
    is_deep = image != gray_png(LEVEL)
    with connect(server.address) as stub:

        def score(reference_id: str, white_level: int | None = None) -> float:
            request = inference_pb2.InferRequest(reference_id=reference_id, image=image, white_level=white_level)
            return float(stub.Infer(request).anomaly.raw_score)

        assert score("camera") == SCORE
        assert score("plain", WHITE) == SCORE
        assert score("plain") == (90 if is_deep else SCORE), "sixteen times too dark, as the file says nothing"
        assert score("camera", 2 * WHITE) == (20 if is_deep else SCORE), "half as bright"


def test_a_file_that_says_its_bits_needs_no_white_level(server: RunningServer) -> None:
    said = png16(twelve_bits(LEVEL), significant=b"\x0c")
    with Client(server.address) as client:
        assert client.infer(said, "plain").anomaly.raw_score == SCORE


def test_json_and_forms_have_a_white_level(server: RunningServer) -> None:
    place = f"{server.http_url}/v1/references/plain"
    body = {"image": base64.b64encode(IMAGE).decode(), "white_level": WHITE}
    assert requests.post(f"{place}:infer", json=body, timeout=60).json()["anomaly"]["raw_score"] == SCORE
    as_form = requests.post(
        f"{place}:infer", files={"image": IMAGE}, data={"white_level": str(WHITE)}, timeout=60
    ).json()
    assert as_form["anomaly"]["raw_score"] == SCORE
    refused = requests.post(f"{place}:infer", json=body | {"white_level": 0}, timeout=60)
    assert refused.status_code == 400
    assert "white_level must be 1 to 65535" in refused.text
    shown = requests.get(f"{server.http_url}/v1/references/camera", timeout=60).json()
    assert shown["reference"]["white_level"] == WHITE


def test_a_stream_has_a_white_level_for_all_its_frames(server: RunningServer) -> None:
    with connect(server.address) as stub:
        for reference_id, white in (("camera", None), ("plain", WHITE)):
            config = stream_pb2.StreamConfig(reference_id=reference_id, white_level=white)
            first = stream_pb2.InferStreamRequest(config=config)
            (one, two) = results(stub.InferStream(iter([first, frame(0, IMAGE), frame(1, gray_png(LEVEL))])))
            assert one.response.anomaly.raw_score == two.response.anomaly.raw_score == SCORE


def test_a_websocket_has_a_white_level_in_its_query(server: RunningServer) -> None:
    with open_stream(server.http_url, "plain", f"white_level={WHITE}") as socket:
        assert "ready" in json.loads(socket.recv(60))
        socket.send(IMAGE)
        assert json.loads(socket.recv(60))["result"]["response"]["anomaly"]["raw_score"] == SCORE


def test_the_open_inference_protocol_has_a_white_level(server: RunningServer) -> None:
    request = request_of_files("plain", IMAGE, gray_png(LEVEL), outputs=["anomaly_map"])
    request.parameters["white_level"].int64_param = WHITE
    with grpc.insecure_channel(server.address) as channel:
        response = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert (np.asarray(values(response, "anomaly_map")) == SCORE).all()


PIXELS: dict[str, np.ndarray] = {
    "Mono12": twelve_bits(LEVEL),
    "BayerRG12": twelve_bits(LEVEL),
    "BayerGB8": np.full((20, 24), LEVEL, np.uint8),
    "RGB12": np.dstack([twelve_bits(LEVEL)] * 3),
    "BGR8": np.full((20, 24, 3), LEVEL, np.uint8),
    "RGB16": np.full((20, 24, 3), LEVEL * 257, np.uint16),
    "YUV422_8": np.dstack([np.full((20, 24), 153, np.uint8), np.full((20, 24), 128, np.uint8)]),
    "NV12": np.vstack([np.full((20, 24), 153, np.uint8), np.full((10, 24), 128, np.uint8)]),
}


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("typed", [False, True])
def test_frames_are_inspected_in_the_format_of_their_camera(server: RunningServer, name: str, typed: bool) -> None:
    for pixels, count in ((PIXELS[name], 1), (np.stack([PIXELS[name]] * 2), 2)):
        request = request_of_pixels("plain", pixels, ["anomaly_map"], pixel_format=name, typed=typed)
        with grpc.insecure_channel(server.address) as channel:
            response = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
        score_map = np.asarray(values(response, "anomaly_map"))
        assert len(score_map) == count
        assert np.abs(score_map - SCORE).max() <= 1


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("binary", [False, True])
def test_frames_are_inspected_over_http(server: RunningServer, name: str, binary: bool) -> None:
    pixels = PIXELS[name]
    tensor: dict[str, Any] = {"name": "pixels", "datatype": pixels.dtype.name.upper(), "shape": pixels.shape}
    data = b""
    if binary:
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        tensor["parameters"] = {"binary_data_size": len(data)}
    else:
        tensor["data"] = pixels.tolist()
    text = json.dumps(
        {"inputs": [tensor], "outputs": [{"name": "anomaly_map"}], "parameters": {"pixel_format": name}}
    ).encode()
    answer = requests.post(
        f"{server.http_url}/v2/models/plain/infer",
        data=text + data,
        headers={"Inference-Header-Content-Length": str(len(text))},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert np.abs(np.array(answer.json()["outputs"][0]["data"]) - SCORE).max() <= 1


def test_metadata_says_datatype_and_shape_of_each_format(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        about = stub.ModelMetadata(pb.ModelMetadataRequest(name="plain"))
        config = stub.ModelConfig(pb.ModelConfigRequest(name="plain")).config
    said = {name: value.string_param for name, value in about.parameters.items()}
    assert said["pixel_format.rgb8"] == "UINT8 [N, height, width, 3]"
    assert said["pixel_format.bayerrg12"] == "UINT16 [N, height, width], 0 to 4095, both sides even"
    assert said["pixel_format.nv12"] == "UINT8 [N, height x 3 / 2, width], both sides even"
    assert said["pixel_format.yuv422_8"] == "UINT8 [N, height, width, 2], width even"
    assert {name: value.string_value for name, value in config.parameters.items()} == said
    place = f"{server.http_url}/v2/models/plain"
    assert requests.get(place, timeout=60).json()["parameters"] == said
    shown = requests.get(f"{place}/config", timeout=60).json()["parameters"]
    assert shown == {name: {"string_value": text} for name, text in said.items()}


def test_a_frame_with_too_many_bits_is_refused_by_its_number(server: RunningServer) -> None:
    frames = np.stack([twelve_bits(LEVEL), twelve_bits(LEVEL) << 4])
    with grpc.insecure_channel(server.address) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request_of_pixels("plain", frames, pixel_format="mono12"))
        assert "images[1]" in str(refusal(caught.value)[2])
        assert "mono16" in str(caught.value.details())


def test_the_client_sends_a_white_level(server: RunningServer) -> None:
    colors = np.dstack([twelve_bits(LEVEL)] * 3)
    with Client(server.address) as client:
        for image in (IMAGE, twelve_bits(LEVEL), colors):
            assert client.infer(image, "plain", white_level=WHITE).anomaly.raw_score == SCORE
        (streamed,) = client.infer_stream([IMAGE], "plain", white_level=WHITE)
        assert streamed.result is not None
        assert streamed.result.anomaly.raw_score == SCORE
        loaded = client.load_reference([REFERENCE_IMAGE, gray_png(REFERENCE_LEVEL)], "own", white_level=WHITE)
        assert loaded.white_level == client.get_reference("own").white_level == WHITE
        assert client.infer(gray_png(REFERENCE_LEVEL), "own").anomaly.raw_score == 0
        grown = client.load_reference(REFERENCE_IMAGE, "own", mode="append")
        assert grown.white_level == WHITE
        assert client.infer(gray_png(REFERENCE_LEVEL), "own").anomaly.raw_score == 0
        with pytest.raises(FailedPrecondition, match="another white_level"):
            client.load_reference(REFERENCE_IMAGE, "own", mode="append", white_level=1023)
        assert client.get_reference("plain").white_level is None


async def test_the_async_client_sends_a_white_level(server: RunningServer) -> None:
    async with AsyncClient(server.address) as client:
        assert (await client.infer(IMAGE, "plain", white_level=WHITE)).anomaly.raw_score == SCORE
        async for streamed in client.infer_stream([IMAGE], "plain", white_level=WHITE):
            assert streamed.result is not None
            assert streamed.result.anomaly.raw_score == SCORE


def test_the_server_says_which_white_levels_there_are(server: RunningServer) -> None:
    with connect(server.address) as stub:
        for request in (
            lambda: stub.Infer(inference_pb2.InferRequest(reference_id="plain", image=IMAGE, white_level=0)),
            lambda: stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[IMAGE], white_level=65_536)),
            lambda: list(
                stub.InferStream(
                    iter([stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig(white_level=2**32 - 1))])
                )
            ),
        ):
            with pytest.raises(grpc.RpcError, match="white_level must be 1 to 65535"):
                request()


def test_the_command_has_a_white_level(server: RunningServer, tmp_path: Path) -> None:
    image = tmp_path / "camera.png"
    image.write_bytes(IMAGE)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["--server", server.address, *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    run("reference", "load", str(image), "--id", "shell", "--white-level", "4095")
    shown = run("reference", "show", "shell")
    assert any(line.split() == ["white_level", "4095"] for line in shown.splitlines()), shown
    for command in ("infer", "stream"):
        (line,) = [
            line
            for line in run(
                command, str(image), "--reference", "plain", "--white-level", "4095", "--output=json"
            ).splitlines()
            if "raw_score" in line
        ]
        assert f'"raw_score": {SCORE}.0' in line
    refused = CliRunner().invoke(app, ["--server", server.address, "infer", str(image), "--white-level", "0"])
    assert refused.exit_code == 2
    assert "--white-level" in refused.output


def test_the_number_of_pixels_is_limited_before_16_bits_are_read() -> None:
    with running_server(max_image_megapixels=1) as small, Client(small.address) as client:
        large = png16(np.zeros((1001, 1000, 3), np.uint16))
        with pytest.raises(InvalidArgument, match="at most 1,000,000 are allowed"):
            client.load_reference(large, white_level=WHITE)
