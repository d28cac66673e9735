"""Converts protobuf to typed results. Only this module reads the fields of responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, stream_pb2
from patchserve_client import _choices as choices
from patchserve_client import _server_types as server_types
from patchserve_client import _types as types
from patchserve_client._enums import from_wire
from patchserve_client._errors import from_status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_T = TypeVar("_T")
_SQUEEZE, _NO_VIEWS = reference_pb2.ASPECT_RATIO_SQUEEZE, reference_pb2.REFERENCE_VIEWS_NONE


def inference_result(message: inference_pb2.InferResponse) -> types.InferenceResult:
    return types.InferenceResult(
        reference_id=message.reference_id,
        reference_revision=message.reference_revision,
        damage=_copied(types.DamageScore, message.damage),
        anomaly=_copied(types.AnomalyScore, message.anomaly),
        regions=tuple(map(_region, message.regions)),
        encoded_overlay=_overlay(message) if message.HasField("overlay") else None,
        score_map=_score_map(message.score_map) if message.HasField("score_map") else None,
        timing=_copied(types.Timing, message.timing),
    )


def _region(message: inference_pb2.Region) -> types.Region:
    return _copied(
        types.Region,
        message,
        bounding_box=_copied(types.BoundingBox, message.bounding_box),
        polygon=tuple((point.x_px, point.y_px) for point in message.polygon),
    )


def _overlay(message: inference_pb2.InferResponse) -> types.EncodedOverlay:
    return _copied(types.EncodedOverlay, message.overlay, data=message.overlay.image or message.overlay_png)


def _score_map(message: inference_pb2.ScoreMap) -> NDArray[np.float32]:
    import numpy as np  # noqa: PLC0415 - loaded on first use

    values = np.frombuffer(message.values, dtype="<f4")
    return values.reshape(message.height, message.width).astype(np.float32)  # (H, W), a writable copy


def reference_info(
    message: reference_pb2.Reference,
    images: Iterable[reference_pb2.ReferenceImage] = (),
    cost: reference_pb2.LoadCost | None = None,
) -> types.ReferenceInfo:
    calibration = message.calibration
    return _copied(
        types.ReferenceInfo,
        message,
        profile=from_wire(choices.ScoringProfile, message.profile, reference_pb2.ScoringProfile),
        calibration=_copied(
            types.Calibration,
            calibration,
            method=from_wire(choices.CalibrationMethod, calibration.method, reference_pb2.CalibrationMethod),
            normal_scores=_copied(
                types.ScoreSpread, calibration.normal_scores, scores=tuple(calibration.normal_scores.scores)
            ),
            false_alarm_rate=calibration.false_alarm_rate if calibration.HasField("false_alarm_rate") else None,
            false_alarm_rate_upper=(
                calibration.false_alarm_rate_upper if calibration.HasField("false_alarm_rate_upper") else None
            ),
        ),
        create_time=message.create_time.ToDatetime(UTC),
        update_time=message.update_time.ToDatetime(UTC),
        coreset_ratio=message.coreset.ratio or None,
        coreset_max_patches=message.coreset.max_patches or None,
        **_input_options(message.input),
        views=from_wire(choices.ReferenceViews, message.views or _NO_VIEWS, reference_pb2.ReferenceViews),
        scales=message.scales or 1,
        views_per_image=message.views_per_image if message.HasField("views_per_image") else None,
        search_radius=message.search_radius if message.HasField("search_radius") else None,
        false_alarm_rate=message.false_alarm_rate if message.HasField("false_alarm_rate") else None,
        white_level=message.white_level if message.HasField("white_level") else None,
        region_of_interest=tuple(
            tuple((point.x, point.y) for point in polygon.points) for polygon in message.region_of_interest
        ),
        images=tuple(_copied(types.ReferenceImage, image) for image in images),
        cost=None if cost is None else _copied(types.LoadCost, cost),
        drift=_drift(message.drift) if message.HasField("drift") else None,
    )


def _drift(message: reference_pb2.Drift) -> types.Drift:
    return _copied(
        types.Drift,
        message,
        state=from_wire(choices.DriftState, message.state, reference_pb2.DriftState),
        shift=message.shift if message.HasField("shift") else None,
        outlier_share=message.outlier_share if message.HasField("outlier_share") else None,
        since=message.since.ToDatetime(UTC) if message.HasField("since") else None,
    )


def kept_revisions(message: reference_pb2.GetReferenceHistoryResponse) -> list[types.KeptRevision]:
    return [
        _copied(
            types.KeptRevision,
            revision,
            reference=reference_info(revision.reference),
            operation=from_wire(choices.ReferenceOperation, revision.operation, reference_pb2.ReferenceOperation),
        )
        for revision in message.revisions
    ]


def _input_options(message: reference_pb2.InputOptions) -> dict[str, Any]:
    return {
        "input_px": "auto" if message.auto else message.longer_side_px or None,
        "aspect": from_wire(choices.AspectRatio, message.aspect or _SQUEEZE, reference_pb2.AspectRatio),
        "tile_px": message.tile_px or None,
        "tile_overlap": message.tile_overlap if message.tile_px and message.HasField("tile_overlap") else None,
    }


def reference_image(message: reference_pb2.GetReferenceImageResponse) -> types.EncodedReferenceImage:
    return _copied(types.EncodedReferenceImage, message, data=message.image)


def load_progress(message: reference_pb2.Load) -> types.LoadProgress:
    return _copied(
        types.LoadProgress,
        message,
        stage=from_wire(choices.LoadStage, message.stage, reference_pb2.LoadStage),
        start_time=message.start_time.ToDatetime(UTC),
    )


def server_info(message: server_info_pb2.GetServerInfoResponse) -> server_types.ServerInfo:
    return _copied(
        server_types.ServerInfo,
        message,
        heatmap_scale=from_wire(choices.HeatmapScale, message.heatmap_scale, inference_pb2.HeatmapScale),
        limits=_copied(server_types.Limits, message.limits),
        store=_copied(server_types.StoreInfo, message.store),
    )


def server_stats(message: server_info_pb2.GetServerStatsResponse) -> server_types.ServerStats:
    return _copied(
        server_types.ServerStats,
        message,
        start_time=message.start_time.ToDatetime(UTC),
        calls=tuple(_copied(server_types.CallCount, one) for one in message.calls),
        failures=tuple(_copied(server_types.FailureCount, one) for one in message.failures),
        wait=_histogram(message.wait),
        inspection=_histogram(message.inspection),
        references=tuple(_copied(server_types.ReferenceStats, one) for one in message.references),
    )


def _histogram(message: server_info_pb2.DurationHistogram) -> server_types.DurationHistogram:
    return server_types.DurationHistogram(tuple(message.bounds_s), tuple(message.counts), message.sum_s)


def stream_event(message: stream_pb2.InferStreamResponse) -> types.FrameResult | types.StreamNotice | None:
    """The result or the notice in a message of a stream. None: neither, as for `ready`."""
    payload = message.WhichOneof("payload")
    if payload == "result":
        return _frame_result(message.result)
    if payload == "notice":
        kind = from_wire(choices.NoticeKind, message.notice.kind, stream_pb2.NoticeKind)
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


def _copied(kind: type[_T], message: Message, **converted: Any) -> _T:  # noqa: ANN401 - values of any field
    """A dataclass filled from the message's fields of the same names, except for those in `converted`."""
    names = (field.name for field in dataclasses.fields(kind) if field.name not in converted)  # type: ignore[arg-type]
    return kind(**{name: getattr(message, name) for name in names}, **converted)
