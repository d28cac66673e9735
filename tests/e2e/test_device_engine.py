"""The whole server on the engine of a GPU: its runtime, its search and its codec, on torch's CPU device."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from e2e.harness import connect, load
from e2e.in_process import RunningServer, running_server
from e2e.streaming import config, frame, results
from fakes.devices import CountedCodec, FakeDevice, device_with
from fakes.images import card, encoded
from PIL import Image

from patchserve.v1.inference_pb2 import InferRequest, InferResponse, OutputOptions, OverlayFormat
from patchserve.v1.server_info_pb2 import GetServerInfoRequest
from patchserve_server.engine.detector import PatchCoreDetector

pytest.importorskip("torchcodec")

FILES = {kind: encoded(card(9, scratched=True), kind) for kind in ("JPEG", "PNG")}
FORMATS = {OverlayFormat.OVERLAY_FORMAT_JPEG: "JPEG", OverlayFormat.OVERLAY_FORMAT_PNG: "PNG"}


@pytest.fixture(scope="module")
def codec() -> CountedCodec:
    return CountedCodec()


@pytest.fixture(scope="module")
def device(codec: CountedCodec) -> FakeDevice:
    return device_with(codec)


@pytest.fixture(scope="module")
def server(device: FakeDevice) -> Iterator[RunningServer]:
    with running_server(detector=device.detector, http_port=None) as running, connect(running.address) as stub:
        load(stub, "cards", 2)
        yield running


@pytest.fixture(scope="module")
def on_cpu(detector: PatchCoreDetector) -> dict[str, InferResponse]:
    """What the server of a CPU answers, by format of the file."""
    with running_server(detector=detector, http_port=None) as running, connect(running.address) as stub:
        load(stub, "cards", 2)
        return {kind: infer(running, file) for kind, file in FILES.items()}


def infer(
    server: RunningServer, image: bytes, format_: OverlayFormat.ValueType = OverlayFormat.OVERLAY_FORMAT_JPEG
) -> InferResponse:
    output = OutputOptions(overlay=True, overlay_format=format_)
    with connect(server.address) as stub:
        return stub.Infer(InferRequest(reference_id="cards", image=image, output=output))


def assert_alike(response: InferResponse, expected: InferResponse) -> None:
    assert response.anomaly.raw_score == pytest.approx(expected.anomaly.raw_score, rel=1e-4)
    assert response.anomaly.is_anomalous == expected.anomaly.is_anomalous
    assert [region.bounding_box for region in response.regions] == [region.bounding_box for region in expected.regions]


def test_the_server_says_that_its_device_decodes(server: RunningServer) -> None:
    with connect(server.address) as stub:
        assert stub.GetServerInfo(GetServerInfoRequest()).decode == "device"


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", FILES)
def test_answers_are_those_of_a_cpu(
    server: RunningServer,
    codec: CountedCodec,
    on_cpu: dict[str, InferResponse],
    kind: str,
    format_: OverlayFormat.ValueType,
) -> None:
    decoded = sum(codec.decoded)
    response = infer(server, FILES[kind], format_)
    assert_alike(response, on_cpu[kind])
    assert sum(codec.decoded) - decoded == (kind == "JPEG")
    overlay = Image.open(io.BytesIO(response.overlay.image or response.overlay_png))
    assert overlay.format == FORMATS[format_]
    expected = Image.open(io.BytesIO(on_cpu[kind].overlay.image))
    difference = np.asarray(overlay).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 4, "but for what JPEG loses"


def test_frames_of_a_stream_are_decoded_by_the_device_too(
    server: RunningServer, codec: CountedCodec, on_cpu: dict[str, InferResponse]
) -> None:
    decoded = sum(codec.decoded)
    frames = [frame(number, FILES["JPEG"]) for number in range(1, 4)]
    with connect(server.address) as stub:
        outcomes = results(stub.InferStream(iter([config("cards"), *frames])))
    for outcome in outcomes:
        assert_alike(outcome.response, on_cpu["JPEG"])
    assert sum(codec.decoded) - decoded == len(frames)
