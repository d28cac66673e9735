"""The Open Inference Protocol gives the same results as our own contract."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import grpc
import numpy as np
import pytest
from e2e.harness import CARDS, MESSAGE_OPTIONS, ServerProcess, Stub, load, refusal
from e2e.in_process import in_process_server
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.images import card, encoded
from fakes.tensors import request_of_files, request_of_pixels, values
from fakes.waiting import wait_until
from PIL import Image

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.kserve import open_inference_pb2_grpc
from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2
from patchserve.v1.reference_pb2 import Reference
from patchserve_server.contract import kserve as kserve_contract

KServe = open_inference_pb2_grpc.GRPCInferenceServiceStub
SCORES = ("score", "is_anomalous", "damage_percentage")


@pytest.fixture
def kserve(server: ServerProcess) -> Iterator[KServe]:
    with grpc.insecure_channel(server.address, options=MESSAGE_OPTIONS) as channel:
        yield KServe(channel)


def scores(response: pb.ModelInferResponse) -> np.ndarray:
    return np.stack([np.asarray(values(response, name), np.float64) for name in SCORES], axis=1)  # (N, 3)


def test_the_server_describes_itself(kserve: KServe) -> None:
    assert kserve.ServerLive(pb.ServerLiveRequest()).live
    assert kserve.ServerReady(pb.ServerReadyRequest()).ready
    about = kserve.ServerMetadata(pb.ServerMetadataRequest())
    assert about.name == "patchserve"
    assert about.version
    assert not about.extensions


def test_a_reference_is_a_model_and_its_revision_the_version(kserve: KServe, cards: Reference) -> None:
    assert kserve.ModelReady(pb.ModelReadyRequest(name=CARDS)).ready
    assert kserve.ModelReady(pb.ModelReadyRequest(name=CARDS, version=cards.revision)).ready
    assert not kserve.ModelReady(pb.ModelReadyRequest(name=CARDS, version="0" * 64)).ready
    assert not kserve.ModelReady(pb.ModelReadyRequest(name="oip-none")).ready
    about = kserve.ModelMetadata(pb.ModelMetadataRequest(name=CARDS, version=cards.revision))
    assert (about.name, list(about.versions), about.platform) == (CARDS, [cards.revision], "patchcore_safetensors")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in about.inputs] == [
        ("image", "BYTES", [-1]),
        ("pixels", "UINT8", [-1, -1, -1, 3]),
    ]
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in about.outputs] == [
        ("score", "FP32", [-1]),
        ("is_anomalous", "BOOL", [-1]),
        ("damage_percentage", "FP64", [-1]),
        ("anomaly_map", "FP32", [-1, 224, 224]),
        ("overlay", "BYTES", [-1]),
    ]


@pytest.mark.parametrize("typed", [False, True])
def test_a_batch_gets_the_results_that_infer_gives_for_each_image(
    kserve: KServe, stub: Stub, cards: Reference, typed: bool
) -> None:
    files = [encoded(card(9)), encoded(card(9, scratched=True))]
    request = request_of_files(CARDS, *files, typed=typed)
    request.id = "a request"
    response = kserve.ModelInfer(request)
    assert (response.model_name, response.model_version, response.id) == (CARDS, cards.revision, "a request")
    assert bool(response.raw_output_contents) is not typed
    output = inference_pb2.OutputOptions(overlay=True, score_map=True)
    for index, image in enumerate(files):
        single = stub.Infer(inference_pb2.InferRequest(reference_id=CARDS, image=image, output=output))
        found = (single.anomaly.score, single.anomaly.is_anomalous, single.damage.damage_percentage)
        assert np.allclose(scores(response)[index], np.array(found, np.float64), atol=1e-3)
        map_ = np.frombuffer(single.score_map.values, "<f4").reshape(224, 224)
        assert np.allclose(values(response, "anomaly_map")[index], map_, atol=1e-3)
        drawn, same = (
            Image.open(io.BytesIO(data)) for data in (values(response, "overlay")[index], single.overlay_png)
        )
        assert drawn.size == same.size == (320, 240)
    assert list(values(response, "is_anomalous")) == [False, True]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.usefixtures("cards")
def test_pixels_give_the_same_results_as_a_file(kserve: KServe, typed: bool) -> None:
    images = [card(9), card(9, scratched=True)]
    from_files = kserve.ModelInfer(request_of_files(CARDS, *(encoded(each, "PNG") for each in images), outputs=SCORES))
    pixels = np.stack([np.asarray(each) for each in images])
    from_pixels = kserve.ModelInfer(request_of_pixels(CARDS, pixels, SCORES, typed=typed))
    assert np.allclose(scores(from_pixels), scores(from_files), atol=1e-5)
    alone = kserve.ModelInfer(request_of_pixels(CARDS, pixels[1], SCORES, typed=typed))
    assert np.allclose(scores(alone), scores(from_files)[1:], atol=1e-3)


@pytest.mark.usefixtures("cards")
def test_only_the_requested_outputs_are_sent_in_the_requested_order(kserve: KServe) -> None:
    response = kserve.ModelInfer(request_of_files(CARDS, encoded(card(1)), outputs=["anomaly_map", "score"]))
    assert [(output.name, list(output.shape)) for output in response.outputs] == [
        ("anomaly_map", [1, 224, 224]),
        ("score", [1]),
    ]
    assert [len(raw) for raw in response.raw_output_contents] == [4 * 224 * 224, 4]


@pytest.mark.usefixtures("cards")
def test_parameters_mean_the_same_as_in_output_options(kserve: KServe, stub: Stub) -> None:
    request = request_of_files(CARDS, encoded(card(9)), outputs=["score", "overlay"])
    request.parameters["sensitivity"].double_param = 4
    request.parameters["heatmap_scale"].string_param = "calibrated"
    request.parameters["overlay_format"].string_param = "jpeg"
    request.parameters["overlay_max_side_px"].int64_param = 100
    response = kserve.ModelInfer(request)
    output = inference_pb2.OutputOptions(
        sensitivity=4,
        overlay=True,
        heatmap_scale=inference_pb2.HEATMAP_SCALE_CALIBRATED,
        overlay_format=inference_pb2.OVERLAY_FORMAT_JPEG,
        overlay_max_side_px=100,
    )
    same = stub.Infer(inference_pb2.InferRequest(reference_id=CARDS, image=encoded(card(9)), output=output))
    assert values(response, "overlay") == [same.overlay.image]
    assert np.allclose(values(response, "score"), same.anomaly.score)


def test_a_tuned_reference_is_another_version_with_other_scores(kserve: KServe, stub: Stub) -> None:
    loaded = load(stub, "oip-tuned", 1)
    request = request_of_files("oip-tuned", encoded(card(9)), outputs=["score"])
    before = kserve.ModelInfer(request)
    tuned = stub.TuneReference(reference_pb2.TuneReferenceRequest(reference_id="oip-tuned", sensitivity=2)).reference
    after = kserve.ModelInfer(request)
    assert (before.model_version, after.model_version) == (loaded.revision, tuned.revision)
    score, tuned_score = (np.array(values(response, "score")) for response in (before, after))
    assert np.allclose(1 / tuned_score - 1, (1 / score - 1) / 2), "the threshold is half as high"
    request.parameters["sensitivity"].double_param = 1
    assert values(kserve.ModelInfer(request), "score") == values(before, "score")


@pytest.mark.usefixtures("cards")
def test_an_unknown_model_or_another_version_is_an_error(kserve: KServe) -> None:
    image = encoded(card(1))
    with pytest.raises(grpc.RpcError) as caught:
        kserve.ModelInfer(request_of_files("oip-none", image))
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")
    assert details["ResourceInfo"].resource_name == "oip-none"  # type: ignore[attr-defined]
    request = request_of_files(CARDS, image)
    request.model_version = "0" * 64
    with pytest.raises(grpc.RpcError) as caught:
        kserve.ModelInfer(request)
    assert refusal(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_MISMATCH")


@pytest.mark.usefixtures("cards")
def test_a_bad_image_fails_the_batch_and_is_named(kserve: KServe) -> None:
    good = encoded(card(1))
    with pytest.raises(grpc.RpcError) as caught:
        kserve.ModelInfer(request_of_files(CARDS, good, good[:1000], good))
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE_IMAGE")
    assert details["BadRequest"].field_violations[0].field == "images[1]"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("cards")
def test_a_stream_answers_every_request_and_continues_after_an_error(kserve: KServe) -> None:
    requests = [request_of_files(name, encoded(card(1)), outputs=["score"]) for name in (CARDS, "none", CARDS)]
    for number, request in enumerate(requests):
        request.id = str(number)
    answers = list(kserve.ModelStreamInfer(iter(requests), timeout=60))
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2"]
    assert answers[1].error_message.startswith("NOT_FOUND (REFERENCE_NOT_FOUND): There is no reference")
    assert not answers[0].error_message
    assert values(answers[0].infer_response, "score") == values(answers[2].infer_response, "score")


def test_a_stream_ends_when_the_server_drains() -> None:
    asked, drained, stop = threading.Event(), threading.Event(), threading.Event()

    def requests() -> Iterator[pb.ModelInferRequest]:
        yield request_of_files("none", b"image")
        asked.set()
        drained.wait(60)

    with in_process_server(drain_grace_s=60.0, stop=stop) as address, grpc.insecure_channel(address) as channel:
        answers = KServe(channel).ModelStreamInfer(requests(), timeout=60)
        assert next(answers).error_message
        assert asked.wait(30)
        stop.set()
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        drained.set()


def test_a_request_with_too_many_images_is_an_error(kserve: KServe) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        kserve.ModelInfer(request_of_files("oip-many", *[b"image"] * 33))
    code, _, details = refusal(caught.value)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    violation = details["BadRequest"].field_violations[0]  # type: ignore[attr-defined]
    assert (violation.field, violation.description) == (
        "inputs[0].shape",
        "This server takes 1 to 32 images in a request.",
    )


def refusal_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refusal(caught.value)[:2]


def test_each_image_of_a_batch_counts_toward_its_clients_limit() -> None:
    detector = FakeDetector()
    with (
        in_process_server(detector=detector, max_pending_images=4, client_share=0.75, max_batch_size=1) as address,
        grpc.insecure_channel(address) as channel,
    ):
        kserve = KServe(channel)
        Stub(channel).LoadReference(reference_pb2.LoadReferenceRequest(images=[gray_png(100)]))
        detector.gate.clear()
        two = request_of_files("default", gray_png(1), gray_png(2))
        under_way = kserve.ModelInfer.future(two)
        wait_until(lambda: len(detector.batches) == 2)
        full = (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal_of(lambda: kserve.ModelInfer(two)) == full
        one = request_of_files("nowhere", gray_png(3))
        assert refusal_of(lambda: kserve.ModelInfer(one)) == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")
        waiting = kserve.ModelStreamInfer(iter([two]))  # a stream waits for its turn
        detector.gate.set()
        assert len(values(under_way.result(), "score")) == 2
        assert len(values(next(waiting).infer_response, "score")) == 2


def test_probes_are_answered_while_other_calls_are_rejected() -> None:
    detector = FakeDetector()
    with (
        in_process_server(detector=detector, max_calls=2, client_share=0.5) as address,
        grpc.insecure_channel(address) as channel,
    ):
        kserve = KServe(channel)
        Stub(channel).LoadReference(reference_pb2.LoadReferenceRequest(images=[gray_png(100)]))
        detector.gate.clear()
        under_way = kserve.ModelInfer.future(request_of_files("default", gray_png(1)))
        wait_until(lambda: bool(detector.batches))
        about = pb.ModelMetadataRequest(name="default")
        assert refusal_of(lambda: kserve.ModelMetadata(about)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert kserve.ServerLive(pb.ServerLiveRequest()).live
        assert kserve.ModelReady(pb.ModelReadyRequest(name="default")).ready
        detector.gate.set()
        assert under_way.exception() is None


def test_maps_have_the_shape_that_the_metadata_of_their_reference_says() -> None:
    wide = reference_pb2.InputOptions(longer_side_px=320, aspect=reference_pb2.ASPECT_RATIO_KEEP)
    with in_process_server() as address, grpc.insecure_channel(address, options=MESSAGE_OPTIONS) as channel:
        kserve, stub = KServe(channel), Stub(channel)
        stub.LoadReference(
            reference_pb2.LoadReferenceRequest(reference_id="wide", images=[gray_png(100, (40, 30))], input=wide)
        )
        about = kserve.ModelMetadata(pb.ModelMetadataRequest(name="wide"))
        (shape,) = (list(tensor.shape) for tensor in about.outputs if tensor.name == "anomaly_map")
        assert shape == [-1, 240, 320]
        files = gray_png(90), gray_png(80, (300, 20))  # others are scaled to it
        maps = values(kserve.ModelInfer(request_of_files("wide", *files)), "anomaly_map")
        assert isinstance(maps, np.ndarray)
        assert maps.shape == (2, 240, 320)


@pytest.mark.parametrize("typed", [False, True])
def test_maps_that_are_too_large_together_are_refused_before_they_are_copied(
    typed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = Mock(wraps=kserve_contract.infer_response)
    monkeypatch.setattr(kserve_contract, "infer_response", converted)
    large = reference_pb2.InputOptions(longer_side_px=1024)
    with in_process_server() as address, grpc.insecure_channel(address, options=MESSAGE_OPTIONS) as channel:
        kserve, stub = KServe(channel), Stub(channel)
        stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[gray_png(100)], input=large))
        limit = stub.GetServerInfo(server_info_pb2.GetServerInfoRequest()).limits.max_message_bytes
        count = limit // (4 * 2**20) + 1
        many = request_of_files("default", *[gray_png(90)] * count, typed=typed)
        assert refusal_of(lambda: kserve.ModelInfer(many)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "RESPONSE_TOO_LARGE",
        )
        converted.assert_not_called()
        few = request_of_files("default", gray_png(90), typed=typed)
        assert np.shape(values(kserve.ModelInfer(few), "anomaly_map")) == (1, 1024, 1024)
        converted.assert_called_once()
