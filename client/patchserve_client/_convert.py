"""Protobuf to typed results, and options to protobuf. Nothing else in the client knows the messages' fields."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve_client import _types as types
from patchserve_client._errors import from_status
from patchserve_client._images import encoded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_E = TypeVar("_E", bound=enum.StrEnum)
_N = TypeVar("_N", int, float)


def inference_result(message: inference_pb2.InferResponse) -> types.InferenceResult:
    damage, anomaly, timing = message.damage, message.anomaly, message.timing
    return types.InferenceResult(
        reference_id=message.reference_id,
        reference_revision=message.reference_revision,
        damage=types.DamageScore(damage.damage_percentage, damage.anomaly_detected, damage.threshold),
        anomaly=types.AnomalyScore(
            score=anomaly.score,
            raw_score=anomaly.raw_score,
            raw_threshold=anomaly.raw_threshold,
            is_anomalous=anomaly.is_anomalous,
            anomalous_area_percentage=anomaly.anomalous_area_percentage,
        ),
        regions=tuple(map(_region, message.regions)),
        encoded_overlay=_overlay(message) if message.HasField("overlay") else None,
        score_map=_score_map(message.score_map) if message.HasField("score_map") else None,
        timing=types.Timing(
            queue_ms=timing.queue_ms,
            decode_ms=timing.decode_ms,
            embed_ms=timing.embed_ms,
            search_ms=timing.search_ms,
            render_ms=timing.render_ms,
            total_ms=timing.total_ms,
        ),
    )


def _region(message: inference_pb2.Region) -> types.Region:
    box = message.bounding_box
    return types.Region(
        bounding_box=types.BoundingBox(box.x_px, box.y_px, box.width_px, box.height_px),
        polygon=tuple((point.x_px, point.y_px) for point in message.polygon),
        area_px=message.area_px,
        area_percentage=message.area_percentage,
        peak_score=message.peak_score,
    )


def _overlay(message: inference_pb2.InferResponse) -> types.EncodedOverlay:
    overlay = message.overlay
    return types.EncodedOverlay(
        data=overlay.image or message.overlay_png,
        media_type=overlay.media_type,
        width_px=overlay.width_px,
        height_px=overlay.height_px,
        source_width_px=overlay.source_width_px,
        source_height_px=overlay.source_height_px,
    )


def _score_map(message: inference_pb2.ScoreMap) -> NDArray[np.float32]:
    import numpy as np  # noqa: PLC0415 - loaded on first use

    values = np.frombuffer(message.values, dtype="<f4")
    return values.reshape(message.height, message.width).astype(np.float32)  # (H, W), a copy that can be written


def reference_info(message: reference_pb2.Reference) -> types.ReferenceInfo:
    calibration, coreset = message.calibration, message.coreset
    spread = calibration.normal_scores
    return types.ReferenceInfo(
        reference_id=message.reference_id,
        revision=message.revision,
        image_count=message.image_count,
        patch_count=message.patch_count,
        feature_dim=message.feature_dim,
        profile=_known(types.ScoringProfile, reference_pb2.ScoringProfile.DESCRIPTOR, message.profile),
        calibration=types.Calibration(
            method=_known(types.CalibrationMethod, reference_pb2.CalibrationMethod.DESCRIPTOR, calibration.method),
            image_threshold=calibration.image_threshold,
            patch_threshold=calibration.patch_threshold,
            normal_scores=types.ScoreSpread(spread.count, spread.min, spread.mean, spread.stddev, spread.max),
        ),
        threshold=message.threshold,
        create_time=message.create_time.ToDatetime(UTC),
        update_time=message.update_time.ToDatetime(UTC),
        backbone=message.backbone,
        weights_digest=message.weights_digest,
        precision=message.precision,
        coreset_ratio=coreset.ratio or None,
        coreset_max_patches=coreset.max_patches or None,
        search_radius=message.search_radius if message.HasField("search_radius") else None,
        region_of_interest=tuple(
            tuple((point.x, point.y) for point in polygon.points) for polygon in message.region_of_interest
        ),
        approximate_search=message.approximate_search,
        bank_bytes=message.bank_bytes,
    )


def load_progress(message: reference_pb2.Load) -> types.LoadProgress:
    return types.LoadProgress(
        reference_id=message.reference_id,
        stage=_known(types.LoadStage, reference_pb2.LoadStage.DESCRIPTOR, message.stage),
        steps_done=message.steps_done,
        steps_total=message.steps_total,
        start_time=message.start_time.ToDatetime(UTC),
        image_count=message.image_count,
    )


def server_info(message: server_info_pb2.GetServerInfoResponse) -> types.ServerInfo:
    limits = message.limits
    return types.ServerInfo(
        version=message.version,
        backbone=message.backbone,
        weights_digest=message.weights_digest,
        weights_source=message.weights_source,
        fallback_reason=message.fallback_reason,
        device=message.device,
        precision=message.precision,
        input_size_px=message.input_size_px,
        feature_dim=message.feature_dim,
        heatmap_scale=_known(types.HeatmapScale, inference_pb2.HeatmapScale.DESCRIPTOR, message.heatmap_scale),
        limits=types.Limits(
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_image_side_px=limits.max_image_side_px,
            max_message_bytes=limits.max_message_bytes,
            max_reference_images=limits.max_reference_images,
            max_pending_images=limits.max_pending_images,
            max_in_flight=limits.max_in_flight,
            default_in_flight=limits.default_in_flight,
            default_timeout_s=limits.default_timeout_s,
            load_timeout_s=limits.load_timeout_s,
            max_bank_bytes=limits.max_bank_bytes,
            max_pending_bytes=limits.max_pending_bytes,
            max_pending_loads=limits.max_pending_loads,
            max_calls=limits.max_calls,
            max_client_pending_images=limits.max_client_pending_images,
            max_client_pending_bytes=limits.max_client_pending_bytes,
            max_client_pending_loads=limits.max_client_pending_loads,
            max_client_calls=limits.max_client_calls,
            max_batch_size=limits.max_batch_size,
            stream_write_timeout_s=limits.stream_write_timeout_s,
            max_connection_age_s=limits.max_connection_age_s,
        ),
    )


def stream_event(message: stream_pb2.InferStreamResponse) -> types.FrameResult | types.StreamNotice | None:
    """What a message of a stream means to a caller; None for one that says nothing new, such as `ready`."""
    payload = message.WhichOneof("payload")
    if payload == "result":
        return _frame_result(message.result)
    if payload == "notice":
        kind = _known(types.NoticeKind, stream_pb2.NoticeKind.DESCRIPTOR, message.notice.kind)
        return types.StreamNotice(kind, message.notice.message)
    return None


def _frame_result(message: stream_pb2.FrameResult) -> types.FrameResult:
    failed = message.WhichOneof("outcome") == "error"
    return types.FrameResult(
        frame_id=message.frame_id,
        sequence=message.sequence,
        capture_time=message.capture_time.ToDatetime(UTC) if message.HasField("capture_time") else None,
        result=None if failed else inference_result(message.response),
        error=from_status(message.error) if failed else None,
    )


def frame_request(frame: types.Frame | types.ImageSource) -> stream_pb2.InferStreamRequest:
    """Reads or encodes the image: blocking."""
    if not isinstance(frame, types.Frame):
        frame = types.Frame(frame)
    message = stream_pb2.Frame(frame_id=frame.frame_id, image=encoded(frame.image))
    if frame.capture_time is not None:
        capture_time = Timestamp()
        capture_time.FromDatetime(frame.capture_time.astimezone(UTC))  # one without a zone is local time
        message.capture_time.CopyFrom(capture_time)
    return stream_pb2.InferStreamRequest(frame=message)


def output_options(
    *,
    overlay: bool,
    heatmap_scale: types.HeatmapScale | str | None,
    score_map: bool,
    max_regions: int | None,
    sensitivity: float | None,
    overlay_format: types.OverlayFormat | str,
    overlay_max_side_px: int | None,
) -> inference_pb2.OutputOptions:
    scale = inference_pb2.HEATMAP_SCALE_UNSPECIFIED
    if heatmap_scale is not None:
        scale = inference_pb2.HeatmapScale.Value(f"HEATMAP_SCALE_{types.HeatmapScale(heatmap_scale).name}")
    if max_regions is not None and max_regions < 0:
        raise ValueError(f"max_regions is 0 or more, not {max_regions}.")
    if sensitivity is not None and not sensitivity > 0:
        raise ValueError(f"sensitivity is above 0, not {sensitivity}.")
    return inference_pb2.OutputOptions(
        overlay=overlay,
        heatmap_scale=scale,
        score_map=score_map,
        max_regions=max_regions,
        sensitivity=sensitivity,
        overlay_format=inference_pb2.OverlayFormat.Value(f"OVERLAY_FORMAT_{types.OverlayFormat(overlay_format).name}"),
        overlay_max_side_px=_positive("overlay_max_side_px", overlay_max_side_px),
    )


def stream_config(
    *,
    reference_id: str,
    output: inference_pb2.OutputOptions,
    max_in_flight: int | None,
    overflow: types.OverflowPolicy | str,
    ordering: types.ResultOrdering | str,
    frame_timeout_s: float | None,
    expected_revision: str,
) -> stream_pb2.InferStreamRequest:
    config = stream_pb2.StreamConfig(
        reference_id=reference_id,
        output=output,
        max_in_flight=_positive("max_in_flight", max_in_flight),
        overflow=stream_pb2.OverflowPolicy.Value(f"OVERFLOW_POLICY_{types.OverflowPolicy(overflow).name}"),
        ordering=stream_pb2.ResultOrdering.Value(f"RESULT_ORDERING_{types.ResultOrdering(ordering).name}"),
        expected_revision=expected_revision,
    )
    if frame_timeout_s is not None:
        frame_timeout = Duration()
        frame_timeout.FromTimedelta(timedelta(seconds=frame_timeout_s))
        config.frame_timeout.CopyFrom(frame_timeout)
    return stream_pb2.InferStreamRequest(config=config)


def load_request(
    *,
    reference_id: str,
    mode: types.LoadMode | str,
    profile: types.ScoringProfile | str | None,
    coreset_ratio: float | None,
    coreset_max_patches: int | None,
    search_radius: float | None,
    region_of_interest: Iterable[types.Polygon],
    approximate_search: bool | None,
    expected_revision: str,
) -> reference_pb2.LoadReferenceRequest:
    """A load without its images."""
    request = reference_pb2.LoadReferenceRequest(
        reference_id=reference_id,
        mode=reference_pb2.LoadMode.Value(f"LOAD_MODE_{types.LoadMode(mode).name}"),
        expected_revision=expected_revision,
        search_radius=search_radius,
        region_of_interest=map(_polygon, region_of_interest),
        approximate_search=approximate_search,
    )
    if profile is not None:
        name = types.ScoringProfile(profile).name
        request.profile = reference_pb2.ScoringProfile.Value(f"SCORING_PROFILE_{name}")
    if coreset_ratio is not None or coreset_max_patches is not None:
        request.coreset.CopyFrom(
            reference_pb2.CoresetOptions(
                ratio=_positive("coreset_ratio", coreset_ratio),
                max_patches=_positive("coreset_max_patches", coreset_max_patches),
            )
        )
    return request


def _polygon(corners: types.Polygon) -> reference_pb2.RelativePolygon:
    try:
        return reference_pb2.RelativePolygon(points=[reference_pb2.RelativePoint(x=x, y=y) for x, y in corners])
    except (TypeError, ValueError) as error:
        message = f"region_of_interest holds polygons, each of them corners (x, y) of numbers; {corners!r} is none."
        raise ValueError(message) from error


def _positive(name: str, value: _N | None) -> _N | int:
    """The value itself, or 0, which is "not given" on the wire and hence nothing that a caller may give."""
    if value is None:
        return 0
    if not value > 0:
        raise ValueError(f"{name} is above 0, not {value}.")
    return value


def _known(kind: type[_E], descriptor: EnumDescriptor, number: int) -> _E | None:
    """The member of the same name; None for a value that only a newer server knows."""
    value = descriptor.values_by_number.get(number)
    return next((member for member in kind if value and value.name.endswith(f"_{member.name}")), None)
