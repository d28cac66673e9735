"""Converts domain values to protobuf."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve_server.contract.enums import (
    ASPECTS,
    DRIFTS,
    METHODS,
    NOTICES,
    OPERATIONS,
    PROFILES,
    SCALES,
    STAGES,
    VIEWS,
    enum_number,
)
from patchserve_server.contract.status import status_of
from patchserve_server.domain.drift import Drift
from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.input_options import InputOptions
from patchserve_server.domain.inspection import Inspection, OverlayFormat, Region
from patchserve_server.domain.load_cost import LoadCost
from patchserve_server.domain.load_progress import LoadProgress
from patchserve_server.domain.reference import Calibration, ReferenceInfo
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.domain.reference_options import CoresetOptions, RelativePoint
from patchserve_server.domain.store_status import StoreStatus
from patchserve_server.domain.stream import FrameOutcome, StreamNotice, StreamReady
from patchserve_server.serving.application import Application
from patchserve_server.serving.reference_images import EncodedReferenceImage


def page_token(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode("ascii")).decode()


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def cost_message(cost: LoadCost) -> reference_pb2.LoadCost:
    return reference_pb2.LoadCost(
        patches_per_image=cost.patches_per_image,
        memory_bytes=cost.memory_bytes,
        ms_per_image=cost.ms_per_image,
        search_recall=cost.search_recall,
    )


def reference_message(info: ReferenceInfo) -> reference_pb2.Reference:
    options = info.options
    coreset = None
    if options.coreset != CoresetOptions():
        ratio, max_patches = options.coreset.ratio or 0, options.coreset.max_patches or 0
        coreset = reference_pb2.CoresetOptions(ratio=ratio, max_patches=max_patches)
    return reference_pb2.Reference(
        reference_id=info.reference_id,
        revision=info.revision,
        image_count=info.image_count,
        patch_count=info.patch_count,
        feature_dim=info.feature_dim,
        profile=enum_number(PROFILES, options.profile),
        calibration=_calibration_message(info.calibration),
        threshold=info.thresholds().image_threshold,
        create_time=_timestamp(info.create_time),
        update_time=_timestamp(info.update_time),
        backbone=info.spec.backbone,
        weights_digest=info.spec.weights_digest,
        precision=info.spec.precision,
        coreset=coreset,
        bank_bytes=info.bank_bytes,
        search_radius=options.search_radius,
        region_of_interest=[_polygon_message(polygon) for polygon in options.region_of_interest],
        approximate_search=options.approximate_search,
        white_level=options.white_level,
        input=_input_message(options.input),
        input_width_px=info.input_shape.width_px,
        input_height_px=info.input_shape.height_px,
        views=enum_number(VIEWS, options.views),
        scales=options.scales,
        views_per_image=info.views_per_image,
        false_alarm_rate=options.false_alarm_rate,
        sensitivity=info.sensitivity,
        previous_revision=info.previous_revision or "",
    )


def reference_with_drift(info: ReferenceInfo, drift: Drift) -> reference_pb2.Reference:
    message = reference_message(info)
    message.drift.CopyFrom(
        reference_pb2.Drift(
            state=DRIFTS[drift.state],
            image_count=drift.image_count,
            shift=drift.shift,
            outlier_share=drift.outlier_share,
            since=None if drift.since is None else _timestamp(drift.since),
        )
    )
    return message


def kept_revision_message(info: ReferenceInfo, *, is_current: bool) -> reference_pb2.KeptRevision:
    return reference_pb2.KeptRevision(
        reference=reference_message(info), operation=OPERATIONS[info.operation], is_current=is_current
    )


def image_message(image: ReferenceImage) -> reference_pb2.ReferenceImage:
    return reference_pb2.ReferenceImage(**dataclasses.asdict(image))  # the fields have the same names


def reference_image_response(image: EncodedReferenceImage) -> reference_pb2.GetReferenceImageResponse:
    return reference_pb2.GetReferenceImageResponse(
        image=image.png,
        media_type="image/png",
        width_px=image.shape.width_px,
        height_px=image.shape.height_px,
        name=image.name,
        reference_revision=image.revision,
    )


def _input_message(options: InputOptions) -> reference_pb2.InputOptions | None:
    if options == InputOptions():
        return None
    return reference_pb2.InputOptions(
        longer_side_px=options.longer_side_px or 0,
        auto=options.auto,
        aspect=enum_number(ASPECTS, options.aspect),
        tile_px=options.tile_px or 0,
        tile_overlap=None if options.tile_px is None else options.tile_overlap,
    )


def _polygon_message(polygon: Sequence[RelativePoint]) -> reference_pb2.RelativePolygon:
    points = [reference_pb2.RelativePoint(x=x, y=y) for x, y in polygon]
    return reference_pb2.RelativePolygon(points=points)


def _calibration_message(calibration: Calibration) -> reference_pb2.Calibration:
    spread = calibration.normal_scores
    return reference_pb2.Calibration(
        method=METHODS[calibration.method],
        image_threshold=calibration.image_threshold,
        patch_threshold=calibration.patch_threshold,
        normal_scores=reference_pb2.ScoreSpread(
            count=spread.count,
            min=spread.min,
            mean=spread.mean,
            stddev=spread.stddev,
            max=spread.max,
            scores=spread.scores,
        ),
        false_alarm_rate=calibration.false_alarm_rate,
        false_alarm_rate_upper=calibration.false_alarm_rate_upper,
    )


def load_message(load: LoadProgress) -> reference_pb2.Load:
    return reference_pb2.Load(
        reference_id=load.reference_id,
        stage=STAGES[load.stage],
        steps_done=load.steps_done,
        steps_total=load.steps_total,
        start_time=_timestamp(load.start_time),
        image_count=load.image_count,
    )


def infer_response(inspection: Inspection) -> inference_pb2.InferResponse:
    """The message, with its overlay and its score map."""
    response = infer_response_without_data(inspection)
    if (overlay := inspection.overlay) is not None:
        if overlay.format is OverlayFormat.PNG:
            response.overlay_png = overlay.data
        else:
            response.overlay.image = overlay.data
    if inspection.score_map is not None:
        response.score_map.values = score_map_bytes(inspection.score_map)
    return response


def infer_response_without_data(inspection: Inspection) -> inference_pb2.InferResponse:
    """The message without what is large: the bytes of the overlay and of the score map."""
    damage, anomaly, timing = inspection.verdict.damage, inspection.verdict.anomaly, inspection.timing
    fields: dict[str, Any] = {  # parts as dicts: a message would be copied
        "reference_id": inspection.reference_id,
        "reference_revision": inspection.reference_revision,
        "damage": {
            "damage_percentage": damage.damage_percentage,
            "anomaly_detected": damage.anomaly_detected,
            "threshold": damage.threshold,
        },
        "anomaly": {
            "score": anomaly.score,
            "raw_score": anomaly.raw_score,
            "raw_threshold": anomaly.raw_threshold,
            "is_anomalous": anomaly.is_anomalous,
            "anomalous_area_percentage": anomaly.anomalous_area_percentage,
        },
        "regions": map(_region_fields, inspection.regions),
        "overlay": _overlay_fields(inspection),
        "score_map": _score_map_fields(inspection),
        "timing": {
            "queue_ms": timing.queue_ms,
            "decode_ms": timing.decode_ms,
            "embed_ms": timing.embed_ms,
            "search_ms": timing.search_ms,
            "render_ms": timing.render_ms,
            "total_ms": timing.total_ms,
        },
    }
    return inference_pb2.InferResponse(**fields)


def score_map_bytes(score_map: AnomalyMap) -> bytes:
    """(H, W) float32, row by row, little-endian."""
    return score_map.astype(np.dtype("<f4"), copy=False).tobytes()


def _region_fields(region: Region) -> dict[str, Any]:
    box = region.bounding_box
    return {
        "bounding_box": {"x_px": box.x_px, "y_px": box.y_px, "width_px": box.width_px, "height_px": box.height_px},
        "polygon": [{"x_px": x_px, "y_px": y_px} for x_px, y_px in region.polygon],
        "area_px": region.area_px,
        "area_percentage": region.area_percentage,
        "peak_score": region.peak_score,
    }


def _overlay_fields(inspection: Inspection) -> dict[str, Any] | None:
    overlay = inspection.overlay
    if overlay is None:
        return None
    width_px, height_px = overlay.size_px
    source_width_px, source_height_px = inspection.source_size_px
    return {
        "media_type": f"image/{overlay.format.value}",
        "width_px": width_px,
        "height_px": height_px,
        "source_width_px": source_width_px,
        "source_height_px": source_height_px,
    }


def _score_map_fields(inspection: Inspection) -> dict[str, Any] | None:
    if inspection.score_map is None:
        return None
    height, width = inspection.score_map.shape
    source_width_px, source_height_px = inspection.source_size_px
    return {
        "height": height,
        "width": width,
        "source_width_px": source_width_px,
        "source_height_px": source_height_px,
    }


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
            notice = stream_pb2.StreamNotice(kind=NOTICES[event.kind], message=event.message)
            return stream_pb2.InferStreamResponse(notice=notice)
        case FrameOutcome():
            return stream_pb2.InferStreamResponse(result=_frame_result(event, request_id))


def _frame_result(outcome: FrameOutcome, request_id: str) -> stream_pb2.FrameResult:
    message = frame_fields(outcome)
    if isinstance(outcome.result, Inspection):
        message.response.CopyFrom(infer_response(outcome.result))
    else:
        message.error.CopyFrom(status_of(outcome.result, request_id))
    return message


def frame_fields(outcome: FrameOutcome) -> stream_pb2.FrameResult:
    """The message without its outcome."""
    message = stream_pb2.FrameResult(frame_id=outcome.frame_id, sequence=outcome.sequence)
    if outcome.capture_time is not None:
        seconds, nanos = outcome.capture_time
        message.capture_time.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    return message


def server_info(application: Application, store: StoreStatus) -> server_info_pb2.GetServerInfoResponse:
    detector, limits = application.detector, application.limits
    return server_info_pb2.GetServerInfoResponse(
        version=application.version,
        http_url=application.http_url,
        grpc_address=application.grpc_address,
        backbone=detector.backbone,
        weights_digest=detector.weights_digest,
        weights_source=detector.weights_source,
        fallback_reason=detector.fallback_reason,
        device=detector.device,
        precision=detector.precision,
        decode=detector.decode,
        input_size_px=detector.input_size_px,
        input_step_px=detector.input_step_px,
        search_product=detector.search_product,
        search_threads=detector.search_threads,
        feature_dim=detector.feature_dim,
        heatmap_scale=enum_number(SCALES, application.heatmap_scale),
        limits=server_info_pb2.Limits(**dataclasses.asdict(limits)),  # the fields have the same names
        store=server_info_pb2.StoreInfo(
            kind=store.kind,
            url=store.url,
            shared=store.is_shared,
            synced_age_s=store.synced_age_s,
            reachable=store.is_reachable,
        ),
    )
