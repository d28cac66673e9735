"""The last change of a reference is undone, while streams run and over restarts; and the images of a reference."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from e2e.harness import Stub, connect, refusal
from e2e.in_process import in_process_server
from fakes.gray import gray_png
from google.rpc import error_details_pb2
from PIL import Image

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_client import Client, FailedPrecondition


@pytest.fixture
def address() -> Iterator[str]:
    with in_process_server() as address:
        yield address


@pytest.fixture
def stub(address: str) -> Iterator[Stub]:
    with connect(address) as stub:
        yield stub


def load(stub: Stub, level: int = 100, **fields: object) -> reference_pb2.Reference:
    request = reference_pb2.LoadReferenceRequest(images=[gray_png(level)], **fields)  # type: ignore[arg-type]
    return stub.LoadReference(request).reference


def restore(stub: Stub, **fields: str) -> reference_pb2.Reference:
    return stub.RestoreReference(reference_pb2.RestoreReferenceRequest(**fields)).reference


def described(stub: Stub) -> reference_pb2.GetReferenceResponse:
    response = stub.GetReference(reference_pb2.GetReferenceRequest())
    response.reference.ClearField("drift")  # that belongs to no revision
    return response


def is_anomalous(stub: Stub, level: int) -> bool:
    return stub.Infer(inference_pb2.InferRequest(image=gray_png(level))).anomaly.is_anomalous


def test_a_picture_that_was_added_by_mistake_is_taken_back(tmp_path: Path) -> None:
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        load(stub, 100, image_names=["intact.png"])
        before = described(stub)
        assert before.reference.previous_revision == ""
        assert is_anomalous(stub, 150)
        append = {"mode": reference_pb2.LOAD_MODE_APPEND, "expected_revision": before.reference.revision}
        grown = load(stub, 200, image_names=["damaged.png"], **append)
        assert grown.previous_revision == before.reference.revision
        assert not is_anomalous(stub, 150)
        restored = restore(stub, revision=before.reference.revision, expected_revision=grown.revision)
        assert restored.previous_revision == grown.revision
        assert is_anomalous(stub, 150)
        restored.previous_revision = ""
        assert restored == before.reference, "with its times"
        assert list(described(stub).images) == list(before.images)
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        assert described(stub).reference.previous_revision == grown.revision
        assert is_anomalous(stub, 150)
        again = restore(stub)
        assert (again.revision, again.image_count) == (grown.revision, 2)
        assert [image.name for image in described(stub).images] == ["intact.png", "damaged.png"]
        assert not is_anomalous(stub, 150)


def test_a_restore_that_cannot_be_says_why(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        restore(stub, reference_id="nobody")
    assert refusal(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")
    loaded = load(stub)
    with pytest.raises(grpc.RpcError) as caught:
        restore(stub)
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_NOT_KEPT")
    failure = details["PreconditionFailure"]
    assert isinstance(failure, error_details_pb2.PreconditionFailure)
    assert failure.violations[0].subject == "default"
    with pytest.raises(grpc.RpcError) as caught:
        restore(stub, revision="latest")
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    request = details["BadRequest"]
    assert isinstance(request, error_details_pb2.BadRequest)
    assert request.field_violations[0].field == "revision"
    assert described(stub).reference == loaded


def test_a_retry_with_a_revision_changes_nothing(stub: Stub) -> None:
    old = load(stub, 100)
    load(stub, 120)
    first = restore(stub, revision=old.revision)
    assert restore(stub, revision=old.revision) == first == described(stub).reference


def test_a_stream_gets_a_notice_of_a_restore_and_keeps_its_revision(stub: Stub) -> None:
    old = load(stub, 100)
    new = load(stub, 120)

    def requests() -> Iterator[stream_pb2.InferStreamRequest]:
        yield stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig())
        restore(stub)
        yield stream_pb2.InferStreamRequest(frame=stream_pb2.Frame(image=gray_png(100)))

    ready, *others = stub.InferStream(requests(), timeout=60)
    assert ready.ready.reference_revision == new.revision
    (notice,) = [one.notice for one in others if one.HasField("notice")]
    assert notice.kind == stream_pb2.NOTICE_KIND_REFERENCE_CHANGED
    assert old.revision in notice.message
    (result,) = [one.result for one in others if one.HasField("result")]
    assert result.response.reference_revision == new.revision


def test_the_client_restores_and_shows_images(address: str) -> None:
    with Client(address) as client:
        old = client.load_reference([gray_png(100)])
        new = client.load_reference([gray_png(120), gray_png(130)])
        image = client.reference_image("default", 1)
        assert np.unique(np.asarray(image.image)).tolist() == [130]
        assert (image.media_type, image.reference_revision) == ("image/png", new.revision)
        assert client.restore_reference("default").revision == old.revision
        with pytest.raises(FailedPrecondition) as caught:
            client.reference_image(expected_revision=new.revision)
        assert caught.value.reason == "REVISION_MISMATCH"


def test_an_image_is_what_the_backbone_saw(stub: Stub) -> None:
    load(stub, 100, image_names=["gray.png"])
    response = stub.GetReferenceImage(reference_pb2.GetReferenceImageRequest())
    image = Image.open(io.BytesIO(response.image))
    assert image.size == (response.width_px, response.height_px) == (16, 16)
    assert (image.format, response.media_type, response.name) == ("PNG", "image/png", "gray.png")
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetReferenceImage(reference_pb2.GetReferenceImageRequest(index=1))
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    request = details["BadRequest"]
    assert isinstance(request, error_details_pb2.BadRequest)
    assert request.field_violations[0].field == "index"
