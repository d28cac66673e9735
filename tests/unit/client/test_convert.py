"""Messages become typed results field by field, and options become messages."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.fake_server import bad_image, inspected, png, reference
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from PIL import Image

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve_client import (
    Calibration,
    Frame,
    FrameResult,
    HeatmapScale,
    InferenceResult,
    InvalidArgument,
    Limits,
    LoadMode,
    LoadStage,
    NoticeKind,
    OverlayFormat,
    ScoringProfile,
    ServerInfo,
    StreamNotice,
    Timing,
    _convert,
)
from patchserve_client._images import encoded


def filled(message: Any) -> Any:
    """Every scalar field of a message set to a number of its own, so that no two can be mistaken for each other."""
    for place, field in enumerate(message.DESCRIPTOR.fields, start=1):
        if field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, f"text {place}")
        elif field.type not in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_ENUM):
            setattr(message, field.name, place)
    return message


def assert_same_scalars(message: Message, result: Any) -> None:
    names = {field.name for field in dataclasses.fields(result)}
    scalars = [field for field in message.DESCRIPTOR.fields if field.name in names and field.message_type is None]
    assert scalars
    for field in scalars:
        if field.enum_type is None and field.type != FieldDescriptor.TYPE_BYTES:
            assert getattr(result, field.name) == getattr(message, field.name), field.name


def test_every_limit_and_fact_of_a_server_arrives() -> None:
    message = filled(server_info_pb2.GetServerInfoResponse(limits=filled(server_info_pb2.Limits())))
    message.heatmap_scale = inference_pb2.HEATMAP_SCALE_CALIBRATED
    info = _convert.server_info(message)
    assert_same_scalars(message, info)
    assert_same_scalars(message.limits, info.limits)
    assert info.heatmap_scale is HeatmapScale.CALIBRATED
    for kind, descriptor in ((ServerInfo, message.DESCRIPTOR), (Limits, message.limits.DESCRIPTOR)):
        assert {field.name for field in dataclasses.fields(kind)} == {field.name for field in descriptor.fields}


def test_every_score_time_and_region_arrives() -> None:
    message = inference_pb2.InferResponse(
        reference_id="r",
        reference_revision="v",
        damage=filled(inference_pb2.DamageScore()),
        anomaly=filled(inference_pb2.AnomalyScore()),
        timing=filled(inference_pb2.Timing()),
        regions=[
            filled(
                inference_pb2.Region(
                    bounding_box=filled(inference_pb2.BoundingBox()),
                    polygon=[inference_pb2.Point(x_px=1, y_px=2), inference_pb2.Point(x_px=3, y_px=4)],
                )
            )
        ],
    )
    result = _convert.inference_result(message)
    assert (result.reference_id, result.reference_revision) == ("r", "v")
    assert_same_scalars(message.damage, result.damage)
    assert_same_scalars(message.anomaly, result.anomaly)
    assert_same_scalars(message.timing, result.timing)
    assert {field.name for field in dataclasses.fields(Timing)} == {
        field.name for field in message.timing.DESCRIPTOR.fields
    }
    assert_same_scalars(message.regions[0], result.regions[0])
    assert_same_scalars(message.regions[0].bounding_box, result.regions[0].bounding_box)
    assert result.regions[0].polygon == ((1, 2), (3, 4))
    assert result.encoded_overlay is None
    assert result.overlay is None
    assert result.score_map is None


@pytest.mark.parametrize("overlay_format", OverlayFormat)
def test_an_overlay_opens_as_an_image(overlay_format: OverlayFormat) -> None:
    answer = inspected("r", png("red", (40, 30)), options(overlay=True, overlay_format=overlay_format))
    assert isinstance(answer, inference_pb2.InferResponse)
    result = _convert.inference_result(answer)
    assert result.encoded_overlay is not None
    assert result.encoded_overlay.media_type == f"image/{overlay_format}"
    assert result.encoded_overlay.data == (answer.overlay_png or answer.overlay.image)
    assert_same_scalars(answer.overlay, result.encoded_overlay)
    assert result.overlay is not None
    assert (result.overlay.format, result.overlay.size) == (overlay_format.name, (40, 30))
    pixel = np.array(result.overlay.convert("RGB").getpixel((0, 0)), int)
    assert np.abs(pixel - (255, 165, 0)).max() <= 4


@given(st_numpy.arrays(np.float32, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=7)))
def test_a_score_map_arrives_as_it_was(values: NDArray[np.float32]) -> None:
    message = inference_pb2.InferResponse(
        score_map=inference_pb2.ScoreMap(
            height=values.shape[0], width=values.shape[1], values=values.astype("<f4").tobytes()
        )
    )
    score_map = _convert.inference_result(message).score_map
    assert score_map is not None
    assert score_map.dtype == np.float32
    np.testing.assert_array_equal(score_map, values)
    score_map += 1  # the caller's own copy


def test_a_reference_arrives_with_times_and_calibration() -> None:
    message = reference("belt", 4, profile=reference_pb2.SCORING_PROFILE_PAPER)
    message.search_radius = 0.25
    info = _convert.reference_info(message)
    assert_same_scalars(message, info)
    assert info.profile is ScoringProfile.PAPER
    assert isinstance(info.calibration, Calibration)
    assert info.calibration.method == "leave_one_out"
    assert_same_scalars(message.calibration, info.calibration)
    assert_same_scalars(message.calibration.normal_scores, info.calibration.normal_scores)
    assert info.create_time == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert info.update_time == datetime(2025, 1, 2, 3, 4, 6, tzinfo=UTC)
    assert (info.coreset_ratio, info.coreset_max_patches) == (0.1, None)


@pytest.mark.parametrize("stage", LoadStage)
def test_how_far_a_load_is_arrives(stage: LoadStage) -> None:
    number = reference_pb2.LoadStage.Value(f"LOAD_STAGE_{stage.name}")
    message = filled(reference_pb2.Load(stage=number))
    message.start_time.FromJsonString("2025-01-02T03:04:05Z")
    load = _convert.load_progress(message)
    assert_same_scalars(message, load)
    assert {field.name for field in dataclasses.fields(load)} == {field.name for field in message.DESCRIPTOR.fields}
    assert (load.stage, load.start_time) == (stage, datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_values_of_a_newer_server_become_none() -> None:
    message = reference("belt", 1)
    message.profile = 77  # type: ignore[assignment]
    message.calibration.method = 0  # type: ignore[assignment]
    info = _convert.reference_info(message)
    assert info.profile is None
    assert info.calibration.method is None
    assert _convert.load_progress(reference_pb2.Load(stage=99)).stage is None  # type: ignore[arg-type]
    notice = stream_pb2.StreamNotice(kind=99, message="hear, hear")  # type: ignore[arg-type]
    event = _convert.stream_event(stream_pb2.InferStreamResponse(notice=notice))
    assert event == StreamNotice(None, "hear, hear")


def test_stream_messages_become_events() -> None:
    ready = stream_pb2.InferStreamResponse(ready=stream_pb2.StreamReady(reference_id="r"))
    assert _convert.stream_event(ready) is None
    notice = stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_DRAINING, message="bye")
    assert _convert.stream_event(stream_pb2.InferStreamResponse(notice=notice)) == StreamNotice(
        NoticeKind.DRAINING, "bye"
    )
    failed = stream_pb2.FrameResult(frame_id="f", sequence=7, error=bad_image().status())
    event = _convert.stream_event(stream_pb2.InferStreamResponse(result=failed))
    assert isinstance(event, FrameResult)
    assert (event.frame_id, event.sequence, event.capture_time, event.result) == ("f", 7, None, None)
    assert isinstance(event.error, InvalidArgument)
    done = stream_pb2.FrameResult(response=inference_pb2.InferResponse(reference_id="r"))
    event = _convert.stream_event(stream_pb2.InferStreamResponse(result=done))
    assert isinstance(event, FrameResult)
    assert isinstance(event.result, InferenceResult)
    assert event.error is None


def test_a_capture_time_keeps_its_moment_in_any_zone() -> None:
    moment = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    message = _convert.frame_request(Frame(b"x", "f", moment)).frame
    assert message.capture_time.ToDatetime(UTC) == moment
    local = datetime(2025, 6, 1, 12, 0, 0)  # noqa: DTZ001 - as a careless caller has it
    message = _convert.frame_request(Frame(b"x", "f", local)).frame
    assert message.capture_time.ToDatetime(UTC) == local.astimezone(UTC)
    assert not _convert.frame_request(b"x").frame.HasField("capture_time")


def options(**changed: Any) -> inference_pb2.OutputOptions:
    given: dict[str, Any] = {"overlay": False, "heatmap_scale": None, "score_map": False, "max_regions": None}
    given |= {"sensitivity": None, "overlay_format": "png", "overlay_max_side_px": None}
    return _convert.output_options(**{**given, **changed})


def load(**changed: Any) -> reference_pb2.LoadReferenceRequest:
    given: dict[str, Any] = {"reference_id": "r", "mode": "replace", "profile": None, "expected_revision": ""}
    given |= {"coreset_ratio": None, "coreset_max_patches": None, "search_radius": None, "region_of_interest": ()}
    given |= {"approximate_search": None}
    return _convert.load_request(**{**given, **changed})


def config(**changed: Any) -> stream_pb2.StreamConfig:
    given: dict[str, Any] = {"reference_id": "r", "output": options(), "max_in_flight": None, "overflow": "block"}
    given |= {"ordering": "input", "frame_timeout_s": None, "expected_revision": ""}
    return _convert.stream_config(**{**given, **changed}).config


def test_absent_options_are_absent_and_given_ones_arrive() -> None:
    assert not options().HasField("max_regions")
    assert options(max_regions=0).HasField("max_regions")
    assert not options().HasField("sensitivity")
    assert options(sensitivity=2).sensitivity == 2
    assert options().overlay_max_side_px == 0
    assert options(overlay_max_side_px=640).overlay_max_side_px == 640
    assert options(overlay_format="jpeg").overlay_format == inference_pb2.OVERLAY_FORMAT_JPEG
    assert options(heatmap_scale="calibrated").heatmap_scale == inference_pb2.HEATMAP_SCALE_CALIBRATED
    assert not load().HasField("coreset")
    assert load(coreset_ratio=0.25).coreset.ratio == 0.25
    assert load(coreset_max_patches=99, profile="paper").coreset.max_patches == 99
    assert not load().HasField("search_radius")
    assert load(search_radius=0).HasField("search_radius")  # the server says what is allowed
    assert load(search_radius=0.1).search_radius == 0.1
    assert len(load(region_of_interest=np.zeros((2, 3, 2))).region_of_interest) == 2
    assert load(mode=LoadMode.APPEND).mode == reference_pb2.LOAD_MODE_APPEND
    assert not config().HasField("frame_timeout")
    assert config(frame_timeout_s=0.25).frame_timeout.nanos == 250_000_000
    assert config(overflow="drop_oldest").overflow == stream_pb2.OVERFLOW_POLICY_DROP_OLDEST
    assert config(ordering="completion").ordering == stream_pb2.RESULT_ORDERING_COMPLETION


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (options, "max_regions", -1),
        (options, "sensitivity", 0),
        (options, "sensitivity", float("nan")),
        (options, "heatmap_scale", "hot"),
        (load, "coreset_ratio", 0),
        (load, "coreset_ratio", float("nan")),
        (load, "coreset_max_patches", 0),
        (load, "region_of_interest", [(0, 0), (1, 0), (1, 1)]),  # a polygon, not a list of them
        (load, "region_of_interest", [[(0, 0, 0)]]),
        (load, "region_of_interest", [[("a", "b")]]),
        (load, "region_of_interest", ["ab"]),
        (load, "mode", "add"),
        (load, "profile", "mine"),
        (config, "max_in_flight", 0),
        (config, "overflow", "explode"),
        (config, "ordering", "random"),
    ],
)
def test_an_option_that_the_wire_cannot_say_is_refused_by_name(
    build: Callable[..., Message], name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"{name}|{re.escape(str(value))}"):
        build(**{name: value})


def pixels(image: bytes, mode: str) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(image)).convert(mode))


@given(st_numpy.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([3, 4]))))
def test_colored_arrays_keep_their_pixels(array: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(pixels(encoded(array), "RGB" if array.shape[2] == 3 else "RGBA"), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_arrays_keep_their_pixels(dtype: type[np.generic]) -> None:
    array = np.arange(12, dtype=dtype).reshape(3, 4) * 20
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded(array)))), array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_pillow_images_of_every_mode_become_a_png_of_their_size(mode: str) -> None:
    data = encoded(Image.new("RGB", (5, 4), "red").convert(mode))
    assert Image.open(io.BytesIO(data)).size == (5, 4)
    assert data.startswith(b"\x89PNG")


def test_a_pillow_image_that_lies_on_its_side_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees to see it upright
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(buffer, "JPEG", exif=exif)
    data = encoded(Image.open(io.BytesIO(buffer.getvalue())))
    assert Image.open(io.BytesIO(data)).size == (4, 6)


def test_files_and_bytes_go_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"not looked at")
    for source in (path, str(path), b"not looked at", bytearray(b"not looked at"), memoryview(b"not looked at")):
        assert encoded(source) == b"not looked at"


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        (np.zeros((3, 4, 2), np.uint8), ValueError, r"\(H, W, 3\) RGB"),
        (np.zeros((3, 4, 3), np.float32), ValueError, "float32"),
        (np.zeros((2, 3, 4, 3), np.uint8), ValueError, r"\(2, 3, 4, 3\)"),
        (np.zeros((0, 4), np.uint8), ValueError, r"\(0, 4\)"),
        (42, TypeError, "not int"),
        (None, TypeError, "not NoneType"),
        ("nowhere.png", FileNotFoundError, "nowhere.png"),
    ],
)
def test_what_is_no_image_is_refused_with_what_is(source: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        encoded(source)
