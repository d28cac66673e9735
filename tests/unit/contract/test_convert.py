"""Requests are checked when they are converted, and the error expected what is allowed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes.gray import reference
from fakes.references import make_reference
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_server import contract
from patchserve_server.domain.errors import InvalidInputError, UndecodableImageError
from patchserve_server.domain.inspection import (
    DEFAULT_MAX_REGIONS,
    AnomalyScore,
    DamageScore,
    EncodedOverlay,
    HeatmapScale,
    Inspection,
    OutputOptions,
    OverlayFormat,
    Verdict,
)
from patchserve_server.domain.load_progress import LoadProgress, LoadStage
from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_options import CoresetOptions, RequestedOptions, ScoringProfile
from patchserve_server.domain.store_status import StoreStatus
from patchserve_server.domain.stream import Frame, FrameOutcome, OverflowPolicy, ResultOrdering
from patchserve_server.serving.application import ServerLimits
from patchserve_server.serving.reference_builder import LoadOptions

LIMITS = ServerLimits(
    **{field.name: 1 for field in fields(ServerLimits)} | {"max_in_flight": 32, "default_in_flight": 8}
)

TRIANGLE = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
INVALID_REGIONS: list[list[list[tuple[float, float]]]] = [
    [[]],
    [[(0, 0), (1, 1)]],
    [TRIANGLE, [(0, 0), (1, 1)]],
    [[(0, 0), (1, 0), (1, 1.0001)]],
    [[(0, 0), (-1e-9, 0), (1, 1)]],
    [[(0, 0), (math.nan, 0), (1, 1)]],
    [TRIANGLE * 167],  # 501 points
    [TRIANGLE] * 167,
    [TRIANGLE] * 1_000,
]
BOX, REVISION = ReferenceId("box"), Revision("0" * 64)
SHARES = st.floats(0, 1) | st.sampled_from([0.0, 1.0])
POLYGONS = st.lists(st.lists(st.tuples(SHARES, SHARES), min_size=3, max_size=9), max_size=9)


def test_an_empty_load_request_has_the_defaults() -> None:
    options = contract.load_options(reference_pb2.LoadReferenceRequest())
    assert options == LoadOptions(
        ReferenceId("default"), append=False, requested=RequestedOptions(), expected_revision=None
    )


def test_only_the_options_that_are_set_are_requested() -> None:
    request = reference_pb2.LoadReferenceRequest(
        profile=reference_pb2.SCORING_PROFILE_VERDICT,
        search_radius=0.1,
        coreset=reference_pb2.CoresetOptions(),
        false_alarm_rate=0.02,
    )
    assert contract.load_options(request).requested == RequestedOptions(
        profile=ScoringProfile.VERDICT, coreset=CoresetOptions(), search_radius=0.1, false_alarm_rate=0.02
    )


def test_a_false_alarm_rate_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"0\.001 to 0\.5, not 0\.$") as caught:
        contract.load_options(reference_pb2.LoadReferenceRequest(false_alarm_rate=0))
    assert caught.value.field == "false_alarm_rate"


def test_a_reference_tells_its_false_alarm_rates() -> None:
    message = contract.reference_message(make_reference().info)
    assert not message.HasField("false_alarm_rate")
    rates = message.calibration.false_alarm_rate, message.calibration.false_alarm_rate_upper
    assert rates == pytest.approx((0.15, 0.5))
    known = make_reference().info
    unknown = dataclasses.replace(
        known,
        options=dataclasses.replace(known.options, false_alarm_rate=0.02),
        calibration=dataclasses.replace(known.calibration, false_alarm_rate=None, false_alarm_rate_upper=None),
    )
    message = contract.reference_message(unknown)
    assert message.false_alarm_rate == pytest.approx(0.02)
    assert not message.calibration.HasField("false_alarm_rate")
    assert not message.calibration.HasField("false_alarm_rate_upper")


def with_region(polygons: Iterable[Iterable[tuple[float, float]]], **fields: Any) -> reference_pb2.LoadReferenceRequest:
    region = [
        reference_pb2.RelativePolygon(points=[reference_pb2.RelativePoint(x=x, y=y) for x, y in points])
        for points in polygons
    ]
    return reference_pb2.LoadReferenceRequest(region_of_interest=region, **fields)


@given(st.none() | st.floats(0, 1, exclude_min=True), POLYGONS)
def test_a_search_radius_and_a_region_of_interest_survive_the_round_trip(
    radius: float | None, polygons: list[list[tuple[float, float]]]
) -> None:
    request = with_region(polygons, search_radius=radius)
    requested = contract.load_options(request).requested
    assert requested.search_radius == radius
    assert (requested.region_of_interest is None) == (polygons == [])
    message = contract.reference_message(reference(options=requested.with_defaults()).info)
    assert message.HasField("search_radius") == (radius is not None)
    assert message.search_radius == (radius or 0)
    assert list(message.region_of_interest) == list(request.region_of_interest)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (reference_pb2.LoadReferenceRequest(reference_id="../etc"), "reference_id"),
        (reference_pb2.LoadReferenceRequest(reference_id="-a"), "reference_id"),
        (reference_pb2.LoadReferenceRequest(reference_id="a" * 65), "reference_id"),
        (reference_pb2.LoadReferenceRequest(reference_id="a\n"), "reference_id"),
        (reference_pb2.LoadReferenceRequest(mode=7), "mode"),  # type: ignore[arg-type]
        (reference_pb2.LoadReferenceRequest(profile=-1), "profile"),  # type: ignore[arg-type]
        (reference_pb2.LoadReferenceRequest(coreset={"ratio": 0.1, "max_patches": 20}), "coreset"),  # type: ignore[arg-type]
        (reference_pb2.LoadReferenceRequest(coreset={"ratio": 1.01}), "coreset.ratio"),  # type: ignore[arg-type]
        (reference_pb2.LoadReferenceRequest(coreset={"ratio": -0.1}), "coreset.ratio"),  # type: ignore[arg-type]
        (reference_pb2.LoadReferenceRequest(coreset={"ratio": math.nan}), "coreset.ratio"),  # type: ignore[arg-type]
        (reference_pb2.LoadReferenceRequest(coreset={"max_patches": 15}), "coreset.max_patches"),  # type: ignore[arg-type]
        *[
            (reference_pb2.LoadReferenceRequest(search_radius=radius), "search_radius")
            for radius in (0, -0.1, 1.0001, math.nan, math.inf)
        ],
        *[(with_region(polygons), "region_of_interest") for polygons in INVALID_REGIONS],
    ],
)
def test_an_invalid_load_request_is_reported_by_its_field(
    request_: reference_pb2.LoadReferenceRequest, field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        contract.load_options(request_)
    assert caught.value.field == field
    assert len(caught.value.message) > 20


def test_a_region_of_interest_has_a_limited_number_of_points() -> None:
    ring = [(0.5 + 0.4 * math.cos(angle), 0.5 + 0.4 * math.sin(angle)) for angle in range(500)]
    assert contract.load_options(with_region([ring])).requested.region_of_interest == (tuple(ring),)
    with pytest.raises(InvalidInputError, match="at most 500 points"):
        contract.load_options(with_region([ring[:-2], TRIANGLE]))
    with pytest.raises(InvalidInputError, match="at least 3 points"):
        contract.load_options(with_region([TRIANGLE, TRIANGLE[:2]]))
    with pytest.raises(InvalidInputError, match="0 to 1"):
        contract.load_options(with_region([[(0, 0), (100, 0), (100, 200)]]))  # pixels


def test_output_options_are_converted_and_checked() -> None:
    assert contract.output_options(inference_pb2.OutputOptions()) == OutputOptions(max_regions=DEFAULT_MAX_REGIONS)
    options = inference_pb2.OutputOptions(
        overlay=True, heatmap_scale=inference_pb2.HEATMAP_SCALE_CALIBRATED, score_map=True, max_regions=0
    )
    assert contract.output_options(options) == OutputOptions(True, HeatmapScale.CALIBRATED, True, 0)
    options = inference_pb2.OutputOptions(overlay_format=inference_pb2.OVERLAY_FORMAT_WEBP, overlay_max_side_px=640)
    assert contract.output_options(options) == OutputOptions(overlay_format=OverlayFormat.WEBP, overlay_max_side_px=640)
    with pytest.raises(InvalidInputError, match="0 to 1000"):
        contract.output_options(inference_pb2.OutputOptions(max_regions=1001))
    for sensitivity in (0.0, 0.09, 10.1, math.nan, math.inf, -1.0):
        with pytest.raises(InvalidInputError, match=r"0\.1 to 10"):
            contract.output_options(inference_pb2.OutputOptions(sensitivity=sensitivity))
    with pytest.raises(InvalidInputError, match="known values"):
        contract.output_options(inference_pb2.OutputOptions(heatmap_scale=9))  # type: ignore[arg-type]


@pytest.mark.parametrize("side_px", [0, 16, 65_535])
def test_valid_overlay_sizes_are_accepted(side_px: int) -> None:
    options = inference_pb2.OutputOptions(overlay_max_side_px=side_px)
    assert contract.output_options(options).overlay_max_side_px == side_px


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        *[
            ({"overlay_max_side_px": side_px}, "output.overlay_max_side_px", "must be 16 to 65535, or 0")
            for side_px in (1, 15, 65_536, 2**32 - 1)
        ],
        *[
            ({"overlay_format": number}, "output.overlay_format", f"is {number}; known values are 0 to 3")
            for number in (-1, 4, 2**31 - 1)
        ],
    ],
)
def test_invalid_overlay_options_are_reported_by_their_field(
    options: dict[str, Any], field: str, expected: str
) -> None:
    with pytest.raises(InvalidInputError, match=expected) as caught:
        contract.output_options(inference_pb2.OutputOptions(**options))
    assert caught.value.field == field


@pytest.mark.parametrize("format_", OverlayFormat)
def test_an_overlay_is_sent_with_its_media_type_and_sizes(format_: OverlayFormat) -> None:
    verdict = Verdict(DamageScore(0, anomaly_detected=False), AnomalyScore(0.2, 1, 4, False, 0), 4.0)
    overlay = EncodedOverlay(b"drawn", format_, (64, 48))
    message = contract.infer_response(Inspection(BOX, REVISION, verdict, (1280, 960), overlay=overlay))
    assert (message.overlay_png or message.overlay.image) == b"drawn"
    assert bool(message.overlay_png) == (format_ is OverlayFormat.PNG)  # the overlay is not sent twice
    assert bool(message.overlay_png) != bool(message.overlay.image)
    assert message.overlay.media_type == f"image/{format_.value}"
    assert (message.overlay.width_px, message.overlay.height_px) == (64, 48)
    assert (message.overlay.source_width_px, message.overlay.source_height_px) == (1280, 960)
    assert not contract.infer_response(Inspection(BOX, REVISION, verdict, (1280, 960))).HasField("overlay")


def test_an_empty_stream_config_has_the_servers_defaults() -> None:
    config = contract.stream_config(stream_pb2.StreamConfig(), LIMITS)
    assert config.max_in_flight == 8
    assert config.frame_timeout_s is None
    assert config.overflow is OverflowPolicy.BLOCK
    assert config.ordering is ResultOrdering.INPUT


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (stream_pb2.StreamConfig(max_in_flight=33), "config.max_in_flight"),
        (stream_pb2.StreamConfig(frame_timeout=Duration()), "config.frame_timeout"),
        (stream_pb2.StreamConfig(frame_timeout=Duration(seconds=-1)), "config.frame_timeout"),
        (stream_pb2.StreamConfig(overflow=5), "config.overflow"),  # type: ignore[arg-type]
        (stream_pb2.StreamConfig(ordering=5), "config.ordering"),  # type: ignore[arg-type]
        (stream_pb2.StreamConfig(output={"max_regions": 5000}), "config.output.max_regions"),  # type: ignore[arg-type]
        (stream_pb2.StreamConfig(output={"overlay_format": 9}), "config.output.overlay_format"),  # type: ignore[arg-type]
        (stream_pb2.StreamConfig(output={"overlay_max_side_px": 9}), "config.output.overlay_max_side_px"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_stream_config_is_reported_by_its_field(config: stream_pb2.StreamConfig, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        contract.stream_config(config, LIMITS)
    assert caught.value.field == field


def test_the_result_of_a_frame_repeats_its_id_and_capture_time() -> None:
    message = stream_pb2.Frame(frame_id="7", image=b"x")
    message.capture_time.seconds = -(2**60)  # not a valid time; the server only repeats it
    message.capture_time.nanos = -5
    frame = contract.frame(message)
    assert frame == Frame("7", (-(2**60), -5), b"x") or (frame.frame_id, frame.capture_time) == ("7", (-(2**60), -5))
    outcome = FrameOutcome(frame.frame_id, frame.capture_time, 3, UndecodableImageError("no image"))
    result = contract.stream_event(outcome, "r1").result
    assert result.capture_time == message.capture_time
    assert (result.frame_id, result.sequence, result.error.message) == ("7", 3, "no image")


def test_a_page_token_stands_for_the_last_id_and_other_tokens_are_invalid() -> None:
    token = contract.page_token("some-id")
    request = reference_pb2.ListReferencesRequest(page_size=5, page_token=token)
    assert contract.page(request) == ("some-id", 5)
    assert contract.page(reference_pb2.ListReferencesRequest()) == ("", 100)
    for bad in ("%%%", "a", "w6k="):  # not base64, too short, not ASCII after decoding
        with pytest.raises(InvalidInputError, match="page_token"):
            contract.page(reference_pb2.ListReferencesRequest(page_token=bad))
    with pytest.raises(InvalidInputError, match="1 to 1000"):
        contract.page(reference_pb2.ListReferencesRequest(page_size=1001))


def test_a_reference_is_sent_with_all_its_fields() -> None:
    message = contract.reference_message(reference("box", images=3).info)
    assert (message.reference_id, message.image_count, message.patch_count, message.feature_dim) == ("box", 3, 3, 3)
    assert message.threshold == message.calibration.image_threshold == 20.0
    assert message.profile == reference_pb2.SCORING_PROFILE_NOTEBOOK
    assert message.create_time.ToJsonString() == "2026-01-02T03:04:05Z"
    assert not message.HasField("coreset")
    assert not message.HasField("views_per_image")
    assert not message.HasField("search_radius")
    assert not message.region_of_interest


def test_server_info_reports_every_limit_and_the_store() -> None:
    limits = ServerLimits(*range(1, 1 + len(fields(ServerLimits))))
    detector = DetectorInfo("b", "d", "s", "", "cpu", "fp32", 224, 32, 1536, "int8", 2, "device")
    application: Any = SimpleNamespace(
        version="1.0",
        http_url="",
        grpc_address="",
        detector=detector,
        limits=limits,
        heatmap_scale=HeatmapScale.RELATIVE,
    )
    status = StoreStatus("s3", "s3://bucket/prefix", is_shared=True, synced_age_s=1.5, is_reachable=False)
    info = contract.server_info(application, status)
    message, store = info.limits, info.store
    assert {field.name: value for field, value in message.ListFields()} == asdict(limits)
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)
    assert (store.kind, store.url, store.shared) == ("s3", "s3://bucket/prefix", True)
    assert (store.synced_age_s, store.reachable) == (1.5, False)
    assert (info.device, info.precision, info.decode) == ("cpu", "fp32", "device")


def test_a_score_map_is_sent_unchanged_with_nan_outside_the_region_of_interest() -> None:
    score_map = np.array([[1, np.nan, 0.25], [np.nan, np.nan, 3]], np.float32)
    verdict = Verdict(DamageScore(1.0, anomaly_detected=False), AnomalyScore(0.5, 1, 1, False, 0), 1.0)
    message = contract.infer_response(Inspection(BOX, REVISION, verdict, (30, 20), score_map=score_map)).score_map
    assert (message.height, message.width, message.source_width_px, message.source_height_px) == (2, 3, 30, 20)
    np.testing.assert_array_equal(np.frombuffer(message.values, "<f4").reshape(2, 3), score_map)


@pytest.mark.parametrize("stage", LoadStage)
def test_a_load_is_sent_with_all_its_fields(stage: LoadStage) -> None:
    message = contract.load_message(LoadProgress(BOX, stage, 3, 7, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 4))
    assert reference_pb2.LoadStage.Name(message.stage) == f"LOAD_STAGE_{stage.name}"
    assert (message.reference_id, message.steps_done, message.steps_total, message.image_count) == ("box", 3, 7, 4)
    assert message.start_time.ToJsonString() == "2026-01-02T03:04:05Z"


def test_loads_are_listed_for_one_reference_or_for_all() -> None:
    assert contract.loads_of(reference_pb2.ListLoadsRequest(reference_id="box")) == "box"
    assert contract.loads_of(reference_pb2.ListLoadsRequest()) is None
    with pytest.raises(InvalidInputError, match="1 to 64"):
        contract.loads_of(reference_pb2.ListLoadsRequest(reference_id="../etc"))


def test_images_of_a_load_have_their_names() -> None:
    request = reference_pb2.LoadReferenceRequest(images=[b"a", b"b"])
    assert [image.name for image in contract.named_images(request)] == ["", ""]
    request.image_names.extend(["intact.jpg", "\u00e9" * 64])
    assert [(image.data, image.name) for image in contract.named_images(request)] == [
        (b"a", "intact.jpg"),
        (b"b", "\u00e9" * 64),
    ]


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (["a"], "image_names"),
        (["a", "b", "c"], "image_names"),
        (["a", "x" * 129], "image_names[1]"),
        (["a", "\u00e9" * 65], "image_names[1]"),
        (["two\nlines", "b"], "image_names[0]"),
        (["a", "\x1b[2J"], "image_names[1]"),
    ],
)
def test_a_bad_name_of_an_image_is_named(names: list[str], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        contract.named_images(reference_pb2.LoadReferenceRequest(images=[b"a", b"b"], image_names=names))
    assert caught.value.field == field


@given(st.integers(1000, 100_000).map(lambda number: number / 10_000))
def test_a_sensitivity_is_the_number_that_was_written_although_its_field_has_less_precision(written: float) -> None:
    """So the same number gives the same threshold in a request and in TuneReference."""
    assert contract.output_options(inference_pb2.OutputOptions(sensitivity=written)).sensitivity == written


def test_the_name_of_an_image_has_at_most_128_bytes() -> None:
    assert contract.image_name("é" * 64) == "é" * 64
    with pytest.raises(InvalidInputError, match="at most 128 bytes") as caught:
        contract.image_name("é" * 64 + "x")
    assert caught.value.field == "image_name"
