"""Loading references with both clients: options, streaming, retries and errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fakes.either_client import CallMethod
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.responses import png

from patchserve.v1 import reference_pb2
from patchserve_client import (
    DeadlineExceeded,
    FailedPrecondition,
    LoadProgress,
    Unavailable,
    _loads,
)

NOT_READY = Fault(grpc.StatusCode.UNAVAILABLE, "Still warming up.", "NOT_READY")


def test_a_false_alarm_rate_is_sent_and_returned(fake: FakeServer, call: CallMethod) -> None:
    loaded = call(fake.address, "load_reference", [png()], "belt", profile="verdict", false_alarm_rate=0.02)
    (request,) = fake.requests["LoadReference"]
    assert (request.false_alarm_rate, loaded.false_alarm_rate) == (0.02, 0.02)
    assert request.profile == reference_pb2.SCORING_PROFILE_VERDICT
    loaded = call(fake.address, "load_reference", [png()])
    assert not fake.requests["LoadReference"][-1].HasField("false_alarm_rate")
    assert loaded.false_alarm_rate is loaded.calibration.false_alarm_rate is None


def test_a_search_radius_and_a_region_of_interest_are_sent_and_returned(fake: FakeServer, call: CallMethod) -> None:
    region = (((0.1, 0.0), (0.9, 0.0), (0.5, 1.0)), ((0.0, 0.0), (1 / 3, 0.0), (0.0, 0.2)))
    options = {"search_radius": 0.1, "region_of_interest": (iter(polygon) for polygon in region)}
    loaded = call(fake.address, "load_reference", [png()], "belt", **options)
    (request,) = fake.requests["LoadReference"]
    assert request.search_radius == 0.1
    assert [[(point.x, point.y) for point in polygon.points] for polygon in request.region_of_interest] == [
        list(polygon) for polygon in region
    ]
    assert (loaded.search_radius, loaded.region_of_interest) == (0.1, region)
    assert hash(loaded) == hash(call(fake.address, "get_reference", "belt"))

    loaded = call(
        fake.address, "load_reference", [png()], "belt", mode="append", **{**options, "region_of_interest": region}
    )
    (start,) = fake.requests["LoadReferenceStream"]
    assert (start.search_radius, start.region_of_interest) == (0.1, request.region_of_interest)

    loaded = call(fake.address, "load_reference", [png()])
    assert not fake.requests["LoadReference"][-1].HasField("search_radius")
    assert not fake.requests["LoadReference"][-1].region_of_interest
    assert (loaded.search_radius, loaded.region_of_interest) == (None, ())


def test_active_loads_are_listed_of_one_reference_or_of_all(fake: FakeServer, call: CallMethod) -> None:
    assert call(fake.address, "list_loads") == []
    fake.loads = [reference_pb2.Load(reference_id=name, steps_done=3) for name in ("belt", "box")]
    (belt,) = call(fake.address, "list_loads", "belt")
    assert isinstance(belt, LoadProgress)
    assert (belt.reference_id, belt.steps_done) == ("belt", 3)
    assert [load.reference_id for load in call(fake.address, "list_loads")] == ["belt", "box"]


@pytest.mark.parametrize("images", [png(), bytearray(png()), np.zeros((4, 4, 3), np.uint8)])
def test_a_single_image_is_a_set_of_one(fake: FakeServer, call: CallMethod, images: Any) -> None:
    assert call(fake.address, "load_reference", images).image_count == 1


def test_a_single_path_is_a_set_of_one(fake: FakeServer, call: CallMethod, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert call(fake.address, "load_reference", path).image_count == 1


def test_an_append_is_retried_only_if_it_names_the_revision(fake: FakeServer, call: CallMethod) -> None:
    fake.fail("LoadReference", NOT_READY)
    call(fake.address, "load_reference", [png()], mode="append", expected_revision="abc")
    assert len(fake.requests["LoadReference"]) == 2
    assert not fake.requests["LoadReferenceStream"]
    fake.fail("LoadReferenceStream", NOT_READY)
    with pytest.raises(Unavailable) as caught:
        call(fake.address, "load_reference", [png()], mode="append")
    assert caught.value.reason == "NOT_READY"
    assert len(fake.requests["LoadReferenceStream"]) == 1


def test_append_adds_images(fake: FakeServer, call: CallMethod) -> None:
    call(fake.address, "load_reference", [png(), png()])
    assert call(fake.address, "load_reference", [png()], mode="append").image_count == 3


def test_a_set_larger_than_one_message_is_streamed(
    fake: FakeServer, call: CallMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(png())
    monkeypatch.setattr(_loads, "HELD_BYTES", 3 * size)
    assert call(fake.address, "load_reference", [png()] * 3, "small").image_count == 3
    assert not fake.requests["LoadReferenceStream"]
    assert call(fake.address, "load_reference", (png() for _ in range(5)), "large", profile="paper").image_count == 5
    (start,) = fake.requests["LoadReferenceStream"]
    assert (start.reference_id, len(start.images)) == ("large", 0)
    assert fake.references["large"].profile == start.profile


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_nothing_is_loaded_if_an_image_cannot_be_drawn(
    fake: FakeServer, call: CallMethod, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "append":
        monkeypatch.setattr(_loads, "HELD_BYTES", 0)

    def images() -> Iterator[bytes]:
        yield png()
        yield png()
        raise LookupError("the third is missing") from OSError("the disk is gone")

    fake.build_s = 30
    with pytest.raises(LookupError, match="third") as caught:
        call(fake.address, "load_reference", images(), mode=mode)
    assert isinstance(caught.value.__cause__, OSError)
    if mode == "append":  # streamed: the server has received the first images
        assert fake.stream_ended.wait(10)
        assert fake.load_cancelled
    assert not fake.references


def test_a_streamed_load_raises_the_error_of_the_server(fake: FakeServer, call: CallMethod) -> None:
    for _ in range(10):  # images are still being sent: the test repeats, since events come in any order
        fake.fail("LoadReferenceStream", Fault(grpc.StatusCode.FAILED_PRECONDITION, "Other weights.", "BANK_MISMATCH"))
        with pytest.raises(FailedPrecondition) as caught:
            call(fake.address, "load_reference", [bytes(200_000)] * 20, mode="append")
        assert caught.value.reason == "BANK_MISMATCH"


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_a_load_ends_at_its_deadline(fake: FakeServer, call: CallMethod, mode: str) -> None:
    fake.delay_s = 30
    with pytest.raises(DeadlineExceeded):
        call(fake.address, "load_reference", [png()], mode=mode, client={"load_timeout_s": 0.2})
    with pytest.raises(DeadlineExceeded):
        call(fake.address, "load_reference", [png()], mode=mode, timeout_s=0.2)


def test_a_folder_stands_for_its_images(fake: FakeServer, call: CallMethod, tmp_path: Path) -> None:
    for name in ("frame 10.png", "frame 2.png", "sub/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(size=(10 + len(name), 8)))
    in_order = [(tmp_path / name).read_bytes() for name in ("frame 2.png", "frame 10.png", "sub/1.png")]
    for images in (str(tmp_path), tmp_path, [tmp_path], (item for item in [tmp_path])):
        assert call(fake.address, "load_reference", images).image_count == 3
        assert list(fake.requests["LoadReference"][-1].images) == in_order
    assert (
        call(fake.address, "load_reference", [tmp_path / "sub", png(), str(tmp_path / "frame 2.png")]).image_count == 3
    )
    assert call(fake.address, "load_reference", str(tmp_path / "frame 2.png")).image_count == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="There are no images in"):
        call(fake.address, "load_reference", [png(), tmp_path / "empty"])


def test_arrays_of_opencv_are_loaded_with_their_colors(fake: FakeServer, call: CallMethod) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    call(fake.address, "load_reference", [red], bgr=True)
    call(fake.address, "load_reference", [red[..., ::-1]])
    bgr, rgb = fake.requests["LoadReference"]
    assert bgr.images == rgb.images
    assert call(fake.address, "infer", red, bgr=True).anomaly.is_anomalous
    assert not call(fake.address, "infer", red).anomaly.is_anomalous
