"""A device that decodes and draws JPEG files: all ways into the server give the same score, and all outputs work."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import requests
from e2e.harness import connect, load, refusal
from e2e.in_process import RunningServer, running_server
from e2e.processes import server_of_processes
from e2e.socket_stub import SocketCall
from e2e.streaming import config, frame, results
from fakes.detector import FakeDetector
from fakes.event_stream import events
from fakes.gray import gray_png
from fakes.images import card, encoded
from fakes.tensors import request_of_files, request_of_pixels, values
from PIL import Image

from patchserve.kserve import open_inference_pb2_grpc
from patchserve.v1.inference_pb2 import InferRequest, OutputOptions, OverlayFormat
from patchserve.v1.server_info_pb2 import GetServerInfoRequest

JPEG = encoded(card(9, scratched=True))
FORMATS = {OverlayFormat.OVERLAY_FORMAT_PNG: "PNG", OverlayFormat.OVERLAY_FORMAT_JPEG: "JPEG"}
FORMATS[OverlayFormat.OVERLAY_FORMAT_WEBP] = "WEBP"


@pytest.fixture(scope="module")
def detector() -> FakeDetector:
    return FakeDetector(decode="device")


@pytest.fixture(scope="module")
def server(detector: FakeDetector) -> Iterator[RunningServer]:
    with running_server(detector=detector) as running, connect(running.address) as stub:
        load(stub, "cards", 4)
        yield running


@pytest.fixture(scope="module")
def expected(server: RunningServer) -> float:
    """The score of the device's pixels."""
    with connect(server.address) as stub:
        score = stub.Infer(InferRequest(reference_id="cards", image=JPEG)).anomaly.raw_score
        pixels = np.asarray(Image.open(io.BytesIO(JPEG)))
        png = encoded(Image.fromarray(pixels), "PNG")
        assert stub.Infer(InferRequest(reference_id="cards", image=png)).anomaly.raw_score != score
    return score


@pytest.mark.parametrize("format_", FORMATS)
def test_a_call_has_the_same_score_with_any_overlay(
    server: RunningServer, detector: FakeDetector, expected: float, format_: OverlayFormat.ValueType
) -> None:
    drawn = len(detector.drawings)
    with connect(server.address) as stub:
        output = OutputOptions(overlay=True, overlay_format=format_, score_map=True)
        response = stub.Infer(InferRequest(reference_id="cards", image=JPEG, output=output))
    assert response.anomaly.raw_score == expected
    assert response.timing.decode_ms > 2
    overlay = response.overlay_png or response.overlay.image
    assert Image.open(io.BytesIO(overlay)).format == FORMATS[format_]
    assert len(detector.drawings) - drawn == (format_ == OverlayFormat.OVERLAY_FORMAT_JPEG)


def test_a_stream_has_the_same_scores_and_an_error_for_a_damaged_frame(server: RunningServer, expected: float) -> None:
    output = OutputOptions(overlay=True, overlay_format=OverlayFormat.OVERLAY_FORMAT_JPEG)
    frames = [frame(1, JPEG), frame(2, JPEG[:-400]), frame(3, gray_png(100)), frame(4, JPEG)]
    with connect(server.address) as stub:
        outcomes = results(stub.InferStream(iter([config("cards", output=output), *frames])))
    assert [outcome.WhichOneof("outcome") for outcome in outcomes] == ["response", "error", "response", "response"]
    assert "truncated" in outcomes[1].error.message
    for outcome in (outcomes[0], outcomes[3]):
        assert outcome.response.anomaly.raw_score == expected
        assert Image.open(io.BytesIO(outcome.response.overlay.image)).size == (320, 240)
    assert outcomes[2].response.overlay.image.startswith(b"\xff\xd8"), "a PNG has its overlay from the CPU"


def test_http_has_the_same_score(server: RunningServer, expected: float) -> None:
    shown = requests.post(
        f"{server.http_url}/infer_json", files={"image": JPEG}, data={"reference_id": "cards"}, timeout=60
    ).json()
    assert requests.get(f"{server.http_url}/outputs/{shown['output_image']}", timeout=60).content[1:4] == b"PNG"
    body = {"image": base64.b64encode(JPEG).decode()}
    answer = requests.post(f"{server.http_url}/v1/references/cards:infer", json=body, timeout=60).json()
    assert answer["anomaly"]["raw_score"] == pytest.approx(expected, rel=1e-6)


def test_a_websocket_has_the_same_score(server: RunningServer, expected: float) -> None:
    (outcome,) = results(SocketCall(server.http_url, iter([config("cards"), frame(1, JPEG)]), 60))
    assert outcome.response.anomaly.raw_score == expected


def test_files_of_kserve_have_the_same_score_and_pixels_that_of_the_cpu(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel, connect(server.address) as stub:
        kserve = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        one = stub.Infer(InferRequest(reference_id="cards", image=JPEG)).anomaly.score
        scores = np.asarray(values(kserve.ModelInfer(request_of_files("cards", JPEG, JPEG)), "score"), np.float64)
        np.testing.assert_allclose(scores, [one, one], rtol=1e-6)
        pixels = np.asarray(Image.open(io.BytesIO(JPEG)))
        png = stub.Infer(InferRequest(reference_id="cards", image=encoded(Image.fromarray(pixels), "PNG")))
        scores = np.asarray(values(kserve.ModelInfer(request_of_pixels("cards", pixels[None])), "score"), np.float64)
        np.testing.assert_allclose(scores, [png.anomaly.score], rtol=1e-6)


def test_the_wall_shows_what_the_device_has_decoded(server: RunningServer) -> None:
    with connect(server.address) as stub, events(f"{server.http_url}/watch/events?reference_id=cards") as stream:
        stream.next("snapshot")
        stub.Infer(InferRequest(reference_id="cards", image=JPEG))
        (tile,) = stream.tiles(1)
    thumbnail = Image.open(io.BytesIO(base64.b64decode(tile["thumbnail"].partition(",")[2] or tile["thumbnail"])))
    assert thumbnail.size == (208, 156)
    assert requests.get(f"{server.http_url}/watch/images/{tile['id']}", timeout=60).content == JPEG
    shown = requests.get(f"{server.http_url}/watch/inspections/{tile['id']}", timeout=60).json()
    assert shown["overlay"]["image"].startswith("/9j/")


def test_what_the_device_cannot_do_is_done_here_and_others_of_its_batch_are_not_hurt(
    server: RunningServer, detector: FakeDetector, expected: float
) -> None:
    other = encoded(card(9).resize((300, 200)))
    output = OutputOptions(overlay=True, overlay_format=OverlayFormat.OVERLAY_FORMAT_JPEG)
    detector.is_unknown = lambda file: file.size_px == (300, 200)
    try:
        with connect(server.address) as stub, ThreadPoolExecutor(16) as pool:
            requested = [InferRequest(reference_id="cards", image=each, output=output) for each in (JPEG, other) * 16]
            responses = list(pool.map(stub.Infer, requested))
    finally:
        detector.is_unknown = lambda _: False
    assert {response.anomaly.raw_score for response in responses[::2]} == {expected}
    assert len({response.anomaly.raw_score for response in responses[1::2]}) == 1
    assert {Image.open(io.BytesIO(response.overlay.image)).size for response in responses[1::2]} == {(300, 200)}


def test_fronts_let_the_device_of_their_engine_decode_and_draw() -> None:
    output = OutputOptions(overlay=True, overlay_format=OverlayFormat.OVERLAY_FORMAT_JPEG)
    with (
        server_of_processes("--device", "cpu,cpu", "--client-share", "1", decode="device") as server,
        server.stub_at(0) as one,
        server.stub_at(1) as other,
        ThreadPoolExecutor(32) as pool,
    ):
        load(one, "cards", 4)
        request = InferRequest(reference_id="cards", image=JPEG, output=output)
        responses = list(pool.map(lambda stub: stub.Infer(request), (one, other) * 32))
        assert len({response.anomaly.raw_score for response in responses}) == 1
        plain = other.Infer(InferRequest(reference_id="cards", image=JPEG))
        assert plain.anomaly.raw_score == responses[0].anomaly.raw_score
        assert min(response.timing.decode_ms for response in responses) > 2
        (overlay,) = {response.overlay.image for response in responses}
        assert Image.open(io.BytesIO(overlay)).size == (320, 240)
        assert len(overlay) < len(JPEG), "the fake device draws the file alone, without its metadata"
        with pytest.raises(grpc.RpcError) as caught:
            one.Infer(InferRequest(reference_id="cards", image=JPEG[:-400]))
        assert refusal(caught.value)[1] == "UNDECODABLE_IMAGE"
        assert one.GetServerInfo(GetServerInfoRequest()) == other.GetServerInfo(GetServerInfoRequest())
