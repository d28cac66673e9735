"""Protobuf messages become typed results, field by field."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.faults import bad_image
from fakes.responses import inspected, png, reference
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from PIL import Image

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve.v1.reference_pb2 import ASPECT_RATIO_KEEP, InputOptions
from patchserve_client import (
    Calibration,
    ErrorDetails,
    Frame,
    FrameResult,
    HeatmapScale,
    InferenceResult,
    InvalidArgument,
    Limits,
    LoadStage,
    NoticeKind,
    OverlayFormat,
    ScoringProfile,
    ServerInfo,
    StoreInfo,
    StreamNotice,
    Timing,
    _requests,
    _results,
)


def filled(message: Any) -> Any:
    """The message with a different value in each scalar field."""
    for number, field in enumerate(message.DESCRIPTOR.fields, start=1):
        if field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, f"text {number}")
        elif field.type not in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_ENUM):
            setattr(message, field.name, number)
    return message


def assert_same_scalars(message: Message, result: Any) -> None:
    names = {field.name for field in dataclasses.fields(result)}
    scalars = [field for field in message.DESCRIPTOR.fields if field.name in names and field.message_type is None]
    assert scalars
    for field in scalars:
        if field.enum_type is None and field.type != FieldDescriptor.TYPE_BYTES:
            value = getattr(message, field.name)
            is_list = not isinstance(value, (str, int, float))
            assert getattr(result, field.name) == (tuple(value) if is_list else value), field.name


def test_every_field_of_the_server_info_is_converted() -> None:
    message = filled(
        server_info_pb2.GetServerInfoResponse(
            limits=filled(server_info_pb2.Limits()), store=filled(server_info_pb2.StoreInfo(shared=True))
        )
    )
    message.heatmap_scale = inference_pb2.HEATMAP_SCALE_CALIBRATED
    info = _results.server_info(message)
    assert_same_scalars(message, info)
    assert_same_scalars(message.limits, info.limits)
    assert_same_scalars(message.store, info.store)
    assert info.heatmap_scale is HeatmapScale.CALIBRATED
    for kind, part in ((ServerInfo, message), (Limits, message.limits), (StoreInfo, message.store)):
        descriptor = part.DESCRIPTOR
        assert {field.name for field in dataclasses.fields(kind)} == {field.name for field in descriptor.fields}


def test_every_score_time_and_region_is_converted() -> None:
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
    result = _results.inference_result(message)
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
    output = _requests.infer_request(b"", "r", {"overlay": True, "overlay_format": overlay_format}).output
    answer = inspected("r", png("red", (40, 30)), output)
    assert isinstance(answer, inference_pb2.InferResponse)
    result = _results.inference_result(answer)
    assert result.encoded_overlay is not None
    assert result.encoded_overlay.media_type == f"image/{overlay_format}"
    assert result.encoded_overlay.data == (answer.overlay_png or answer.overlay.image)
    assert_same_scalars(answer.overlay, result.encoded_overlay)
    assert result.overlay is not None
    assert (result.overlay.format, result.overlay.size) == (overlay_format.name, (40, 30))
    pixel = np.array(result.overlay.convert("RGB").getpixel((0, 0)), int)
    assert np.abs(pixel - (255, 165, 0)).max() <= 4


@settings(deadline=None)
@given(st_numpy.arrays(np.float32, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=7)))
def test_a_score_map_keeps_its_values(values: NDArray[np.float32]) -> None:
    message = inference_pb2.InferResponse(
        score_map=inference_pb2.ScoreMap(
            height=values.shape[0], width=values.shape[1], values=values.astype("<f4").tobytes()
        )
    )
    score_map = _results.inference_result(message).score_map
    assert score_map is not None
    assert score_map.dtype == np.float32
    np.testing.assert_array_equal(score_map, values)
    score_map += 1  # a writable copy


def test_a_reference_is_converted_with_its_times_and_calibration() -> None:
    message = reference("belt", 4, profile=reference_pb2.SCORING_PROFILE_PAPER)
    message.search_radius = 0.25
    message.false_alarm_rate = 0.02
    message.calibration.false_alarm_rate, message.calibration.false_alarm_rate_upper = 0.019, 0.09
    message.white_level = 4095
    message.views, message.scales, message.views_per_image = reference_pb2.REFERENCE_VIEWS_AUTO, 2, 9
    message.previous_revision = "before"
    message.calibration.normal_scores.scores.extend([4, 5, 6])
    info = _results.reference_info(message)
    assert_same_scalars(message, info)
    assert (info.profile, info.views) == (ScoringProfile.PAPER, "auto")
    assert isinstance(info.calibration, Calibration)
    assert info.calibration.method == "leave_one_out"
    assert_same_scalars(message.calibration, info.calibration)
    assert_same_scalars(message.calibration.normal_scores, info.calibration.normal_scores)
    assert info.create_time == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert info.update_time == datetime(2025, 1, 2, 3, 4, 6, tzinfo=UTC)
    assert (info.coreset_ratio, info.coreset_max_patches) == (0.1, None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, (None, "squeeze", None, None)),
        (InputOptions(longer_side_px=320), (320, "squeeze", None, None)),
        (InputOptions(auto=True, aspect=ASPECT_RATIO_KEEP), ("auto", "keep", None, None)),
        (InputOptions(tile_px=448, tile_overlap=0), (None, "squeeze", 448, 0)),
        (InputOptions(tile_overlap=0.25), (None, "squeeze", None, None)),
        (InputOptions(aspect=77), (None, None, None, None)),  # type: ignore[arg-type]
    ],
)
def test_the_size_of_model_inputs_is_converted(options: InputOptions | None, expected: tuple[object, ...]) -> None:
    message = reference("belt", 1)
    message.input_width_px, message.input_height_px = 320, 256
    if options is not None:
        message.input.CopyFrom(options)
    info = _results.reference_info(message)
    assert (info.input_px, info.aspect, info.tile_px, info.tile_overlap) == expected
    assert (info.input_width_px, info.input_height_px) == (320, 256)


@pytest.mark.parametrize("stage", LoadStage)
def test_the_progress_of_a_load_is_converted(stage: LoadStage) -> None:
    number = reference_pb2.LoadStage.Value(f"LOAD_STAGE_{stage.name}")
    message = filled(reference_pb2.Load(stage=number))
    message.start_time.FromJsonString("2025-01-02T03:04:05Z")
    load = _results.load_progress(message)
    assert_same_scalars(message, load)
    assert {field.name for field in dataclasses.fields(load)} == {field.name for field in message.DESCRIPTOR.fields}
    assert (load.stage, load.start_time) == (stage, datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_values_that_only_a_newer_server_knows_become_none() -> None:
    message = reference("belt", 1)
    message.profile = 77  # type: ignore[assignment]
    message.calibration.method = 0  # type: ignore[assignment]
    info = _results.reference_info(message)
    assert info.profile is None
    assert info.calibration.method is None
    assert _results.load_progress(reference_pb2.Load(stage=99)).stage is None  # type: ignore[arg-type]
    notice = stream_pb2.StreamNotice(kind=99, message="Something new.")  # type: ignore[arg-type]
    event = _results.stream_event(stream_pb2.InferStreamResponse(notice=notice))
    assert event == StreamNotice(None, "Something new.")


def test_stream_messages_become_events() -> None:
    ready = stream_pb2.InferStreamResponse(ready=stream_pb2.StreamReady(reference_id="r"))
    assert _results.stream_event(ready) is None
    notice = stream_pb2.StreamNotice(kind=stream_pb2.NOTICE_KIND_DRAINING, message="bye")
    assert _results.stream_event(stream_pb2.InferStreamResponse(notice=notice)) == StreamNotice(
        NoticeKind.DRAINING, "bye"
    )
    failed = stream_pb2.FrameResult(frame_id="f", sequence=7, error=bad_image().status())
    event = _results.stream_event(stream_pb2.InferStreamResponse(result=failed))
    assert isinstance(event, FrameResult)
    assert (event.frame_id, event.sequence, event.capture_time, event.result) == ("f", 7, None, None)
    assert isinstance(event.error, InvalidArgument)
    done = stream_pb2.FrameResult(response=inference_pb2.InferResponse(reference_id="r"))
    event = _results.stream_event(stream_pb2.InferStreamResponse(result=done))
    assert isinstance(event, FrameResult)
    assert isinstance(event.result, InferenceResult)
    assert event.error is None


def result_of(color: str = "red", **output: Any) -> InferenceResult:
    message = inspected("belt", png(color), inference_pb2.OutputOptions(**output))
    assert isinstance(message, inference_pb2.InferResponse)
    return _results.inference_result(message)


def test_results_and_references_have_a_short_repr() -> None:
    result = result_of(overlay=True, score_map=True)
    assert repr(result) == "<InferenceResult anomalous 3.00 x, 1 region, reference 'belt'>"
    assert repr(_results.reference_info(reference("belt", 1))).startswith("<ReferenceInfo 'belt': 1 image, revision ")
    assert repr(FrameResult("a.png", 3, None, result, None)) == "<FrameResult 3 'a.png': anomalous 3.00 x, 1 region>"
    error = InvalidArgument("?", ErrorDetails(reason="EMPTY_IMAGE"))
    assert repr(FrameResult("a.png", 3, None, None, error)) == "<FrameResult 3 'a.png': EMPTY_IMAGE>"
    for value in (result.encoded_overlay, Frame(bytes(10_000), "a.png")):
        assert len(repr(value)) < 200


def test_a_result_as_a_dictionary_can_be_written_as_json() -> None:
    result = result_of(overlay=True, score_map=True)
    document = json.loads(json.dumps(result.to_dict()))
    assert document["anomaly"]["raw_score"] == result.anomaly.raw_score
    assert document["regions"][0]["bounding_box"]["x_px"] == result.regions[0].bounding_box.x_px
    assert document["overlay"]["media_type"] == "image/png"
    assert {field.name for field in dataclasses.fields(result)} - set(document) == {"encoded_overlay", "score_map"}
    assert result_of().to_dict()["overlay"] is None


def test_a_result_is_saved_with_what_was_requested(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert result_of().save(folder) == [folder / "result.json"]
    result = result_of(overlay=True, overlay_format=inference_pb2.OVERLAY_FORMAT_JPEG, score_map=True)
    files = result.save(str(folder), "parcel-7")
    assert [file.name for file in files] == ["parcel-7.json", "parcel-7_overlay.jpg", "parcel-7_score_map.npy"]
    assert json.loads(files[0].read_text()) == json.loads(json.dumps(result.to_dict()))
    with Image.open(files[1]) as overlay:
        assert overlay.format == "JPEG"
    np.testing.assert_array_equal(np.load(files[2]), result.score_map)
