"""Options become protobuf messages; what cannot be sent is rejected."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fakes.either_client import CallMethod
from fakes.fake_server import FakeServer
from fakes.responses import png
from google.protobuf.message import Message

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_client import Client, Frame, InferOptions, LoadMode, LoadOptions, StreamOptions
from patchserve_client._requests import frame_request, infer_request, load_request, stream_config


def output(**options: Any) -> inference_pb2.OutputOptions:
    return infer_request(b"", "r", cast("InferOptions", options)).output


def load(**options: Any) -> reference_pb2.LoadReferenceRequest:
    return load_request("r", cast("LoadOptions", options))


def config(**options: Any) -> stream_pb2.StreamConfig:
    return stream_config("r", cast("StreamOptions", options)).config


def test_options_that_are_not_given_are_not_sent() -> None:
    assert not output().HasField("max_regions")
    assert output(max_regions=0).HasField("max_regions")
    assert not output().HasField("sensitivity")
    assert output(sensitivity=2).sensitivity == 2
    assert output().overlay_max_side_px == 0
    assert output(overlay_max_side_px=640).overlay_max_side_px == 640
    assert output(overlay_format="jpeg").overlay_format == inference_pb2.OVERLAY_FORMAT_JPEG
    assert output(heatmap_scale="calibrated").heatmap_scale == inference_pb2.HEATMAP_SCALE_CALIBRATED
    assert not load().HasField("white_level")
    assert not infer_request(b"", "r", {}).HasField("white_level")
    assert not config().HasField("white_level")
    assert load(white_level=0).HasField("white_level")  # the server says what is allowed
    assert load(white_level=4095).white_level == 4095
    assert infer_request(b"", "r", {"white_level": 1}).white_level == 1
    assert config(white_level=65_535).white_level == 65_535
    assert not load().HasField("coreset")
    assert load(coreset_ratio=0.25).coreset.ratio == 0.25
    assert load(coreset_max_patches=99, profile="paper").coreset.max_patches == 99
    assert not load().HasField("search_radius")
    assert load(search_radius=0).HasField("search_radius")  # the server says what is allowed
    assert load(search_radius=0.1).search_radius == 0.1
    assert not load().HasField("input")
    assert load(input_px=320).input == reference_pb2.InputOptions(longer_side_px=320)
    assert load(input_px="auto").input == reference_pb2.InputOptions(auto=True)
    assert load(aspect="keep").input.aspect == reference_pb2.ASPECT_RATIO_KEEP
    assert not load(tile_px=448).input.HasField("tile_overlap")
    assert load(tile_px=448, tile_overlap=0).input == reference_pb2.InputOptions(tile_px=448, tile_overlap=0)
    assert len(load(region_of_interest=np.zeros((2, 3, 2))).region_of_interest) == 2
    assert load(mode=LoadMode.APPEND).mode == reference_pb2.LOAD_MODE_APPEND
    assert not config().HasField("frame_timeout")
    assert config(frame_timeout_s=0.25).frame_timeout.nanos == 250_000_000
    assert config(overflow="drop_oldest").overflow == stream_pb2.OVERFLOW_POLICY_DROP_OLDEST
    assert config(ordering="completion").ordering == stream_pb2.RESULT_ORDERING_COMPLETION


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [
        (output, "max_regions", -1),
        (output, "sensitivity", 0),
        (output, "sensitivity", float("nan")),
        (output, "heatmap_scale", "hot"),
        (output, "white_level", -1),
        (load, "white_level", -1),
        (config, "white_level", -1),
        (load, "coreset_ratio", 0),
        (load, "coreset_ratio", float("nan")),
        (load, "coreset_max_patches", 0),
        (load, "region_of_interest", [(0, 0), (1, 0), (1, 1)]),  # one polygon, not a list of polygons
        (load, "region_of_interest", [[(0, 0, 0)]]),
        (load, "region_of_interest", [[("a", "b")]]),
        (load, "region_of_interest", ["ab"]),
        (load, "input_px", 0),
        (load, "input_px", "large"),
        (load, "aspect", "stretch"),
        (load, "tile_px", -1),
        (load, "mode", "add"),
        (load, "profile", "mine"),
        (config, "max_in_flight", 0),
        (config, "overflow", "explode"),
        (config, "ordering", "random"),
    ],
)
def test_a_value_that_cannot_be_sent_is_rejected_by_name(
    build: Callable[..., Message], name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"{name}|{re.escape(str(value))}"):
        build(**{name: value})


def test_a_capture_time_is_the_same_moment_in_every_time_zone() -> None:
    moment = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    message = frame_request(Frame(b"x", "f", moment)).frame
    assert message.capture_time.ToDatetime(UTC) == moment
    local = datetime(2025, 6, 1, 12, 0, 0)  # noqa: DTZ001 - as a careless caller has it
    message = frame_request(Frame(b"x", "f", local)).frame
    assert message.capture_time.ToDatetime(UTC) == local.astimezone(UTC)
    assert not frame_request(b"x").frame.HasField("capture_time")


@pytest.mark.parametrize(
    ("method", "argument", "supported"),
    [("infer", png(), InferOptions), ("infer_stream", [png()], StreamOptions), ("load_reference", png(), LoadOptions)],
)
def test_an_unknown_option_is_rejected_by_name_before_anything_is_sent(
    fake: FakeServer, call: CallMethod, method: str, argument: Any, supported: type
) -> None:
    names = ", ".join(supported.__annotations__)
    with pytest.raises(TypeError, match=f"^Unknown option: overlays, modes; supported: {names}.$"):
        call(fake.address, method, argument, overlays=True, expected_revision="", modes=1)
    assert not fake.requests


@pytest.mark.parametrize(
    ("method", "options"),
    [(Client.infer, InferOptions), (Client.infer_stream, StreamOptions), (Client.load_reference, LoadOptions)],
)
def test_the_help_of_a_method_explains_each_of_its_options(method: Callable[..., Any], options: type) -> None:
    text = inspect.getdoc(method) or ""
    shared = InferOptions.__annotations__ if method is Client.infer_stream else {}  # "the options of `infer`"
    explained = set(re.findall(r"^ {8}(\w+): ", text, re.MULTILINE)) | set(shared)
    assert set(options.__annotations__) <= explained


def test_an_image_has_the_name_of_its_file_unless_another_is_given(tmp_path: Path) -> None:
    file = tmp_path / f"{'x' * 200}-7.png"
    file.write_bytes(png())
    assert infer_request(file, "", {}).image_name == file.name[-128:]
    assert infer_request(file, "", {"image_name": "belt 7"}).image_name == "belt 7"
    assert infer_request(png(), "", {}).image_name == ""
    assert infer_request(png(), "", {"image_name": "\ud800"}).image_name == "\\ud800"
