"""Protobuf to domain and back. Requests are checked here; nothing below sees a message."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeVar

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.inspection import (
    DEFAULT_MAX_REGIONS,
    HeatmapScale,
    Inspection,
    OutputOptions,
    Region,
)
from patchserve_server.domain.reference import (
    Calibration,
    CalibrationMethod,
    CoresetOptions,
    Reference,
    ScoringProfile,
    checked_reference_id,
)
from patchserve_server.domain.stream import (
    Frame,
    FrameOutcome,
    NoticeKind,
    OverflowPolicy,
    ResultOrdering,
    StreamConfig,
    StreamNotice,
    StreamReady,
)
from patchserve_server.rpc.status import status_of
from patchserve_server.serving.application import Application, ServerLimits
from patchserve_server.serving.loading import LoadOptions

MAX_REGIONS: Final = 1000
SENSITIVITY_RANGE: Final = (0.1, 10.0)
MIN_CORESET_PATCHES: Final = 16
DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000

_MODES: Final = {
    reference_pb2.LOAD_MODE_UNSPECIFIED: False,
    reference_pb2.LOAD_MODE_REPLACE: False,
    reference_pb2.LOAD_MODE_APPEND: True,
}
_PROFILES: Final = {
    reference_pb2.SCORING_PROFILE_UNSPECIFIED: None,
    reference_pb2.SCORING_PROFILE_NOTEBOOK: ScoringProfile.NOTEBOOK,
    reference_pb2.SCORING_PROFILE_PAPER: ScoringProfile.PAPER,
}
_METHODS: Final = {
    CalibrationMethod.LEAVE_ONE_OUT: reference_pb2.CALIBRATION_METHOD_LEAVE_ONE_OUT,
    CalibrationMethod.AUGMENTED_VIEWS: reference_pb2.CALIBRATION_METHOD_AUGMENTED_VIEWS,
}
_SCALES: Final = {
    inference_pb2.HEATMAP_SCALE_UNSPECIFIED: None,
    inference_pb2.HEATMAP_SCALE_RELATIVE: HeatmapScale.RELATIVE,
    inference_pb2.HEATMAP_SCALE_CALIBRATED: HeatmapScale.CALIBRATED,
}
_OVERFLOWS: Final = {
    stream_pb2.OVERFLOW_POLICY_UNSPECIFIED: OverflowPolicy.BLOCK,
    stream_pb2.OVERFLOW_POLICY_BLOCK: OverflowPolicy.BLOCK,
    stream_pb2.OVERFLOW_POLICY_DROP_OLDEST: OverflowPolicy.DROP_OLDEST,
}
_ORDERINGS: Final = {
    stream_pb2.RESULT_ORDERING_UNSPECIFIED: ResultOrdering.INPUT,
    stream_pb2.RESULT_ORDERING_INPUT: ResultOrdering.INPUT,
    stream_pb2.RESULT_ORDERING_COMPLETION: ResultOrdering.COMPLETION,
}
_NOTICES: Final = {
    NoticeKind.DRAINING: stream_pb2.NOTICE_KIND_DRAINING,
    NoticeKind.REFERENCE_CHANGED: stream_pb2.NOTICE_KIND_REFERENCE_CHANGED,
}

K = TypeVar("K", bound=int)
V = TypeVar("V")


def _known(table: Mapping[K, V], value: K, field: str) -> V:
    if value not in table:
        raise InvalidInputError(field, f"{field} is {value}; known values are 0 to {max(table)}.")
    return table[value]


def _number_of(table: Mapping[K, V], value: V) -> K:
    return {known: number for number, known in table.items()}[value]


# Requests


def load_options(request: reference_pb2.LoadReferenceRequest) -> LoadOptions:
    """Everything of a load but its pictures."""
    return LoadOptions(
        reference_id=checked_reference_id(request.reference_id),
        append=_known(_MODES, request.mode, "mode"),
        profile=_known(_PROFILES, request.profile, "profile"),
        coreset=_coreset_options(request.coreset) if request.HasField("coreset") else None,
        expected_revision=request.expected_revision,
    )


def _coreset_options(message: reference_pb2.CoresetOptions) -> CoresetOptions:
    if message.ratio and message.max_patches:
        raise InvalidInputError("coreset", "coreset takes a ratio or max_patches, not both.")
    if not 0 <= message.ratio <= 1:  # catches NaN too
        raise InvalidInputError("coreset.ratio", "coreset.ratio is above 0 and at most 1.")
    if message.max_patches and message.max_patches < MIN_CORESET_PATCHES:
        raise InvalidInputError("coreset.max_patches", f"coreset.max_patches is at least {MIN_CORESET_PATCHES}.")
    return CoresetOptions(message.ratio or None, message.max_patches or None)


def output_options(message: inference_pb2.OutputOptions, field: str = "output") -> OutputOptions:
    max_regions = message.max_regions if message.HasField("max_regions") else DEFAULT_MAX_REGIONS
    if max_regions > MAX_REGIONS:
        raise InvalidInputError(f"{field}.max_regions", f"{field}.max_regions is 0 to {MAX_REGIONS}.")
    sensitivity = message.sensitivity if message.HasField("sensitivity") else 1.0
    low, high = SENSITIVITY_RANGE
    if not low * (1 - 1e-6) <= sensitivity <= high:  # it came as a float32; catches NaN too
        raise InvalidInputError(f"{field}.sensitivity", f"{field}.sensitivity is {low:g} to {high:g}.")
    return OutputOptions(
        overlay=message.overlay,
        heatmap_scale=_known(_SCALES, message.heatmap_scale, f"{field}.heatmap_scale"),
        score_map=message.score_map,
        max_regions=max_regions,
        sensitivity=sensitivity,
    )


def stream_config(message: stream_pb2.StreamConfig, limits: ServerLimits) -> StreamConfig:
    if message.max_in_flight > limits.max_in_flight:
        text = f"config.max_in_flight is at most {limits.max_in_flight} here; 0 takes {limits.default_in_flight}."
        raise InvalidInputError("config.max_in_flight", text)
    frame_timeout_s = None
    if message.HasField("frame_timeout"):
        frame_timeout_s = message.frame_timeout.seconds + message.frame_timeout.nanos / 1e9
        if frame_timeout_s <= 0 or not math.isfinite(frame_timeout_s):
            raise InvalidInputError("config.frame_timeout", "config.frame_timeout is positive; leave it out for none.")
    return StreamConfig(
        reference_id=checked_reference_id(message.reference_id),
        expected_revision=message.expected_revision,
        output=output_options(message.output, "config.output"),
        max_in_flight=message.max_in_flight or limits.default_in_flight,
        overflow=_known(_OVERFLOWS, message.overflow, "config.overflow"),
        ordering=_known(_ORDERINGS, message.ordering, "config.ordering"),
        frame_timeout_s=frame_timeout_s,
    )


def frame(message: stream_pb2.Frame) -> Frame:
    captured = message.capture_time
    capture_time = (captured.seconds, captured.nanos) if message.HasField("capture_time") else None
    return Frame(message.frame_id, capture_time, message.image)


def page(request: reference_pb2.ListReferencesRequest) -> tuple[str, int]:
    """The id after which the page begins, and its size."""
    if request.page_size > MAX_PAGE_SIZE:
        raise InvalidInputError("page_size", f"page_size is 1 to {MAX_PAGE_SIZE}; 0 takes {DEFAULT_PAGE_SIZE}.")
    try:
        after_id = base64.b64decode(request.page_token, b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("page_token", "page_token is not one that ListReferences returned.") from error
    return after_id, request.page_size or DEFAULT_PAGE_SIZE


# Answers


def page_token(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode("ascii")).decode()


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def reference_message(reference: Reference) -> reference_pb2.Reference:
    model = reference.model
    kept = model.coreset
    coreset = None
    if kept != CoresetOptions():
        coreset = reference_pb2.CoresetOptions(ratio=kept.ratio or 0, max_patches=kept.max_patches or 0)
    return reference_pb2.Reference(
        reference_id=reference.reference_id,
        revision=reference.revision,
        image_count=len(model.bank.inputs),
        patch_count=model.bank.patches.shape[0],
        feature_dim=model.bank.patches.shape[1],
        profile=_number_of(_PROFILES, model.spec.profile),
        calibration=_calibration_message(model.calibration),
        threshold=model.calibration.image_threshold,
        create_time=_timestamp(reference.create_time),
        update_time=_timestamp(reference.update_time),
        backbone=model.spec.backbone,
        weights_digest=model.spec.weights_digest,
        precision=model.spec.precision,
        coreset=coreset,
        bank_bytes=model.bank.nbytes,
    )


def _calibration_message(calibration: Calibration) -> reference_pb2.Calibration:
    spread = calibration.normal_scores
    return reference_pb2.Calibration(
        method=_METHODS[calibration.method],
        image_threshold=calibration.image_threshold,
        patch_threshold=calibration.patch_threshold,
        normal_scores=reference_pb2.ScoreSpread(
            count=spread.count, min=spread.min, mean=spread.mean, stddev=spread.stddev, max=spread.max
        ),
    )


def infer_response(inspection: Inspection) -> inference_pb2.InferResponse:
    damage, anomaly, timing = inspection.detection.damage, inspection.detection.anomaly, inspection.timing
    return inference_pb2.InferResponse(
        reference_id=inspection.reference_id,
        reference_revision=inspection.reference_revision,
        damage=inference_pb2.DamageScore(
            damage_percentage=damage.damage_percentage,
            anomaly_detected=damage.anomaly_detected,
            threshold=damage.threshold,
        ),
        anomaly=inference_pb2.AnomalyScore(
            score=anomaly.score,
            raw_score=anomaly.raw_score,
            raw_threshold=anomaly.raw_threshold,
            is_anomalous=anomaly.is_anomalous,
            anomalous_area_percentage=anomaly.anomalous_area_percentage,
        ),
        regions=[_region_message(region) for region in inspection.regions],
        overlay_png=inspection.overlay_png,
        score_map=_score_map_message(inspection),
        timing=inference_pb2.Timing(
            queue_ms=timing.queue_ms,
            decode_ms=timing.decode_ms,
            embed_ms=timing.embed_ms,
            search_ms=timing.search_ms,
            render_ms=timing.render_ms,
            total_ms=timing.total_ms,
        ),
    )


def _region_message(region: Region) -> inference_pb2.Region:
    box = region.bounding_box
    return inference_pb2.Region(
        bounding_box=inference_pb2.BoundingBox(
            x_px=box.x_px, y_px=box.y_px, width_px=box.width_px, height_px=box.height_px
        ),
        polygon=[inference_pb2.Point(x_px=x_px, y_px=y_px) for x_px, y_px in region.polygon],
        area_px=region.area_px,
        area_percentage=region.area_percentage,
        peak_score=region.peak_score,
    )


def _score_map_message(inspection: Inspection) -> inference_pb2.ScoreMap | None:
    if inspection.score_map is None:
        return None
    height, width = inspection.score_map.shape
    source_width_px, source_height_px = inspection.source_size_px
    return inference_pb2.ScoreMap(
        height=height,
        width=width,
        values=inspection.score_map.astype(np.dtype("<f4"), copy=False).tobytes(),
        source_width_px=source_width_px,
        source_height_px=source_height_px,
    )


def stream_event(event: StreamReady | FrameOutcome | StreamNotice, request_id: str) -> stream_pb2.InferStreamResponse:
    match event:
        case StreamReady():
            ready = stream_pb2.StreamReady(
                reference_id=event.reference_id,
                reference_revision=event.reference_revision,
                max_in_flight=event.max_in_flight,
            )
            return stream_pb2.InferStreamResponse(ready=ready)
        case StreamNotice():
            notice = stream_pb2.StreamNotice(kind=_NOTICES[event.kind], message=event.message)
            return stream_pb2.InferStreamResponse(notice=notice)
        case FrameOutcome():
            return stream_pb2.InferStreamResponse(result=_frame_result(event, request_id))


def _frame_result(outcome: FrameOutcome, request_id: str) -> stream_pb2.FrameResult:
    message = stream_pb2.FrameResult(frame_id=outcome.frame_id, sequence=outcome.sequence)
    if outcome.capture_time is not None:
        seconds, nanos = outcome.capture_time
        message.capture_time.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    if isinstance(outcome.result, Inspection):
        message.response.CopyFrom(infer_response(outcome.result))
    else:
        message.error.CopyFrom(status_of(outcome.result, request_id))
    return message


def server_info(application: Application, version: str) -> server_info_pb2.GetServerInfoResponse:
    detector, limits = application.detector, application.limits
    return server_info_pb2.GetServerInfoResponse(
        version=version,
        backbone=detector.backbone,
        weights_digest=detector.weights_digest,
        weights_source=detector.weights_source,
        fallback_reason=detector.fallback_reason,
        device=detector.device,
        precision=detector.precision,
        input_size_px=detector.input_size_px,
        feature_dim=detector.feature_dim,
        heatmap_scale=_number_of(_SCALES, application.heatmap_scale),
        limits=server_info_pb2.Limits(
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_image_side_px=limits.max_image_side_px,
            max_message_bytes=limits.max_message_bytes,
            max_reference_images=limits.max_reference_images,
            max_pending_images=limits.max_pending_images,
            max_in_flight=limits.max_in_flight,
            default_in_flight=limits.default_in_flight,
            default_timeout_s=limits.default_timeout_s,
            max_bank_bytes=limits.max_bank_bytes,
            load_timeout_s=limits.load_timeout_s,
        ),
    )
