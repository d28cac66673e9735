"""The calls of both clients: what is sent, what is retried, and what is returned."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fakes.either_client import CallMethod
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.responses import png, reference

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_client import (
    AsyncClient,
    Cancelled,
    DeadlineExceeded,
    EncodedReferenceImage,
    InferenceResult,
    InvalidArgument,
    NotFound,
    ReferenceImage,
    ReferenceInfo,
    ResourceExhausted,
    Unavailable,
)

NOT_READY = Fault(grpc.StatusCode.UNAVAILABLE, "Still warming up.", "NOT_READY")


def test_infer_sends_its_options_and_returns_a_result(fake: FakeServer, call: CallMethod) -> None:
    result = call(
        fake.address,
        "infer",
        png("red"),
        "belt",
        overlay=True,
        heatmap_scale="calibrated",
        score_map=True,
        max_regions=3,
        overlay_format="webp",
        overlay_max_side_px=16,
        expected_revision="abc",
    )
    assert isinstance(result, InferenceResult)
    assert result.anomaly.is_anomalous
    assert result.overlay is not None
    assert (result.overlay.format, result.overlay.size) == ("WEBP", (16, 12))
    np.testing.assert_array_equal(result.score_map, [[0, 1, 2], [3, 4, 5]])
    (request,) = fake.requests["Infer"]
    assert (request.reference_id, request.expected_revision) == ("belt", "abc")
    assert (request.output.overlay, request.output.score_map, request.output.max_regions) == (True, True, 3)
    assert request.output.overlay_format == inference_pb2.OVERLAY_FORMAT_WEBP
    assert request.output.overlay_max_side_px == 16


def test_a_reference_is_loaded_listed_shown_and_deleted(fake: FakeServer, call: CallMethod) -> None:
    loaded = call(fake.address, "load_reference", [png(), png("blue")], "belt", profile="paper", coreset_ratio=0.5)
    assert isinstance(loaded, ReferenceInfo)
    assert (loaded.reference_id, loaded.image_count, loaded.profile) == ("belt", 2, "paper")
    assert fake.requests["LoadReference"][0].coreset.ratio == 0.5
    assert call(fake.address, "get_reference", "belt") == loaded
    assert call(fake.address, "list_references") == [loaded]
    assert call(fake.address, "delete_reference", "belt", expected_revision="x") == loaded.revision
    assert fake.requests["DeleteReference"][0].expected_revision == "x"
    with pytest.raises(NotFound) as caught:
        call(fake.address, "get_reference", "belt")
    assert (caught.value.reason, caught.value.resource_name) == ("REFERENCE_NOT_FOUND", "belt")


def test_a_reference_is_tuned(fake: FakeServer, call: CallMethod) -> None:
    loaded = call(fake.address, "load_reference", [png()], "belt", sensitivity=0.5)
    assert fake.requests["LoadReference"][0].sensitivity == loaded.sensitivity == 0.5
    tuned = call(fake.address, "tune_reference", "belt", 1.5, expected_revision=loaded.revision)
    (request,) = fake.requests["TuneReference"]
    assert (request.sensitivity, request.expected_revision) == (1.5, loaded.revision)
    assert (tuned.sensitivity, tuned.threshold) == (1.5, 7)
    assert call(fake.address, "get_reference", "belt") == tuned
    with pytest.raises(NotFound):
        call(fake.address, "tune_reference", "nobody", 1.5)


def test_a_reference_is_restored(fake: FakeServer, call: CallMethod) -> None:
    loaded = call(fake.address, "load_reference", [png()], "belt")
    assert loaded.previous_revision == ""
    fake.references["belt"].previous_revision = "before"
    restored = call(fake.address, "restore_reference", "belt", revision="before", expected_revision=loaded.revision)
    (request,) = fake.requests["RestoreReference"]
    assert (request.reference_id, request.revision) == ("belt", "before")
    assert request.expected_revision == loaded.revision
    assert (restored.revision, restored.previous_revision) == ("before", loaded.revision)
    assert call(fake.address, "get_reference", "belt") == restored
    with pytest.raises(NotFound):
        call(fake.address, "restore_reference", "nobody")


def test_a_restore_is_not_retried(fake: FakeServer, call: CallMethod) -> None:
    """The second would undo the first."""
    call(fake.address, "load_reference", [png()], "belt")
    fake.fail("RestoreReference", NOT_READY)
    with pytest.raises(Unavailable):
        call(fake.address, "restore_reference", "belt")
    assert len(fake.requests["RestoreReference"]) == 1


def test_an_image_of_a_reference_can_be_opened(fake: FakeServer, call: CallMethod) -> None:
    loaded = call(fake.address, "load_reference", [png()], "belt")
    fake.fail("GetReferenceImage", NOT_READY)
    image = call(fake.address, "reference_image", "belt", 3, expected_revision=loaded.revision)
    assert isinstance(image, EncodedReferenceImage)
    assert (image.media_type, image.width_px, image.height_px) == ("image/png", 4, 4)
    assert (image.name, image.reference_revision) == ("3.jpg", loaded.revision)
    assert image.image.size == (4, 4)
    request = fake.requests["GetReferenceImage"][-1]
    assert (request.reference_id, request.index, request.expected_revision) == ("belt", 3, loaded.revision)


def test_normal_scores_are_a_list(fake: FakeServer, call: CallMethod) -> None:
    fake.references["belt"] = reference("belt", 3)
    assert call(fake.address, "get_reference", "belt").calibration.normal_scores.scores == ()
    fake.references["belt"].calibration.normal_scores.scores.extend([4, 5, 6])
    assert call(fake.address, "get_reference", "belt").calibration.normal_scores.scores == (4.0, 5.0, 6.0)


def test_images_are_loaded_with_the_names_of_their_files(fake: FakeServer, call: CallMethod, tmp_path: Path) -> None:
    names = ["belt 1.png", "\u00fc" * 70 + ".png", "two\nlines.png", "not utf-8 \udcff.png"]
    for name in names:
        (tmp_path / name).write_bytes(png())
    call(fake.address, "load_reference", [*(tmp_path / name for name in names), png()], "belt")
    sent = ["belt 1.png", "\u00fc" * 62 + ".png", "two?lines.png", "not utf-8 ?.png", ""]
    (request,) = fake.requests["LoadReference"]
    assert list(request.image_names) == sent
    assert all(len(name.encode()) <= 128 for name in sent)
    call(fake.address, "load_reference", [tmp_path / names[0], png()], "belt", mode="append")
    (streamed,) = fake.requests["LoadReferenceStream"]
    assert not streamed.image_names
    assert fake.streamed_names == [names[0], ""]
    call(fake.address, "load_reference", [png(), png()], "belt")
    assert not fake.requests["LoadReference"][1].image_names


def test_the_images_of_a_reference_are_described(fake: FakeServer, call: CallMethod) -> None:
    loaded = call(fake.address, "load_reference", [png()], "belt")
    described = reference_pb2.ReferenceImage(
        name="a.png", media_type="image/png", width_px=32, height_px=24, size_bytes=99
    )
    fake.images["belt"] = [described]
    got = call(fake.address, "get_reference", "belt")
    assert (loaded.images, got.images) == ((), (ReferenceImage("a.png", "image/png", 32, 24, 99),))
    assert got == loaded


def test_references_are_fetched_page_by_page(fake: FakeServer, call: CallMethod) -> None:
    for name in "edcba":
        fake.references[name] = reference(name, 1)
    assert [one.reference_id for one in call(fake.address, "list_references")] == list("abcde")
    assert [request.page_token for request in fake.requests["ListReferences"]] == ["", "b", "d"]


def test_an_error_has_the_details_of_the_server(fake: FakeServer, call: CallMethod) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call(fake.address, "infer", b"no image")
    assert caught.value.reason == "UNDECODABLE_IMAGE"
    assert caught.value.field_violations[0].field == "image"
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("method", "args", "rpc"),
    [
        ("infer", (png(),), "Infer"),
        ("infer", (bytes(2 * 2**20),), "Infer"),  # more than gRPC buffers by default for a retry
        ("load_reference", ([png()],), "LoadReference"),
        ("server_info", (), "GetServerInfo"),
        ("list_references", (), "ListReferences"),
        ("list_loads", (), "ListLoads"),
    ],
)
def test_calls_that_are_safe_to_repeat_are_retried(
    fake: FakeServer, call: CallMethod, method: str, args: tuple[Any, ...], rpc: str
) -> None:
    fake.fail(rpc, NOT_READY, times=2)
    try:
        call(fake.address, method, *args)
    except InvalidArgument:
        assert args == (bytes(2 * 2**20),)  # it arrived: the server rejected the image
    assert len(fake.requests[rpc]) == 3


def test_retries_end(fake: FakeServer, call: CallMethod) -> None:
    fake.fail("Infer", NOT_READY, times=9)
    with pytest.raises(Unavailable) as caught:
        call(fake.address, "infer", png())
    assert caught.value.reason == "NOT_READY"
    assert len(fake.requests["Infer"]) == 5


def test_only_unavailable_is_retried(fake: FakeServer, call: CallMethod) -> None:
    fake.fail("Infer", Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "Full.", "QUEUE_FULL"))
    with pytest.raises(ResourceExhausted):
        call(fake.address, "infer", png())
    assert len(fake.requests["Infer"]) == 1


@pytest.mark.parametrize(
    ("method", "args", "rpc"),
    [("delete_reference", ("belt",), "DeleteReference"), ("tune_reference", ("belt", 2.0), "TuneReference")],
)
def test_a_change_that_cannot_be_repeated_is_not_retried(
    fake: FakeServer, call: CallMethod, method: str, args: tuple[Any, ...], rpc: str
) -> None:
    fake.fail(rpc, NOT_READY)
    with pytest.raises(Unavailable):
        call(fake.address, method, *args)
    assert len(fake.requests[rpc]) == 1


def test_a_call_ends_at_its_deadline(fake: FakeServer, call: CallMethod) -> None:
    fake.delay_s = 30
    with pytest.raises(DeadlineExceeded, match=r"127\.0\.0\.1"):
        call(fake.address, "infer", png(), client={"timeout_s": 0.2})
    with pytest.raises(DeadlineExceeded):
        call(fake.address, "server_info", timeout_s=0.2)


async def test_the_event_loop_runs_while_an_image_is_read(fake: FakeServer) -> None:
    """The image is a pipe that only the event loop can write to, like a slow disk."""
    reading, writing = os.pipe()
    async with AsyncClient(fake.address) as client:
        pending = asyncio.create_task(client.infer(f"/dev/fd/{reading}"))
        await asyncio.sleep(0)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(png())
        assert (await pending).reference_id == "default"
    os.close(reading)


async def test_cancelling_a_task_and_closing_the_client_are_different_errors(fake: FakeServer) -> None:
    fake.delay_s = 30
    client = AsyncClient(fake.address)
    waiting = asyncio.create_task(client.infer(png()))
    await asyncio.to_thread(fake.wait_for_request, "Infer")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    waiting = asyncio.create_task(client.infer(png()))
    await asyncio.to_thread(fake.wait_for_request, "Infer", 2)
    await client.close()
    with pytest.raises(Cancelled):
        await waiting
