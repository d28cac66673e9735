"""Enums of the contract and the corresponding values of the domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_server.domain.drift import DriftState
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.input_options import AspectRatio
from patchserve_server.domain.inspection import HeatmapScale, OverlayFormat
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.reference import CalibrationMethod, ReferenceOperation
from patchserve_server.domain.reference_options import ReferenceViews, ScoringProfile
from patchserve_server.domain.stream import NoticeKind, OverflowPolicy, ResultOrdering

MODES: Final = {
    reference_pb2.LOAD_MODE_UNSPECIFIED: False,
    reference_pb2.LOAD_MODE_REPLACE: False,
    reference_pb2.LOAD_MODE_APPEND: True,
}
STAGES: Final = {
    LoadStage.RECEIVE: reference_pb2.LOAD_STAGE_RECEIVE,
    LoadStage.QUANTIZE: reference_pb2.LOAD_STAGE_QUANTIZE,
    LoadStage.EMBED: reference_pb2.LOAD_STAGE_EMBED,
    LoadStage.CORESET: reference_pb2.LOAD_STAGE_CORESET,
    LoadStage.CALIBRATE: reference_pb2.LOAD_STAGE_CALIBRATE,
    LoadStage.SAVE: reference_pb2.LOAD_STAGE_SAVE,
}
PROFILES: Final = {
    reference_pb2.SCORING_PROFILE_UNSPECIFIED: None,
    reference_pb2.SCORING_PROFILE_NOTEBOOK: ScoringProfile.NOTEBOOK,
    reference_pb2.SCORING_PROFILE_PAPER: ScoringProfile.PAPER,
    reference_pb2.SCORING_PROFILE_VERDICT: ScoringProfile.VERDICT,
    reference_pb2.SCORING_PROFILE_SUBSPACE: ScoringProfile.SUBSPACE,
}
ASPECTS: Final = {
    reference_pb2.ASPECT_RATIO_UNSPECIFIED: AspectRatio.SQUEEZE,
    reference_pb2.ASPECT_RATIO_SQUEEZE: AspectRatio.SQUEEZE,
    reference_pb2.ASPECT_RATIO_KEEP: AspectRatio.KEEP,
}
VIEWS: Final = {
    reference_pb2.REFERENCE_VIEWS_UNSPECIFIED: None,
    reference_pb2.REFERENCE_VIEWS_NONE: ReferenceViews.NONE,
    reference_pb2.REFERENCE_VIEWS_AUTO: ReferenceViews.AUTO,
    reference_pb2.REFERENCE_VIEWS_ALL: ReferenceViews.ALL,
}
DRIFTS: Final = {
    DriftState.TOO_FEW_IMAGES: reference_pb2.DRIFT_STATE_TOO_FEW_IMAGES,
    DriftState.NONE: reference_pb2.DRIFT_STATE_NONE,
    DriftState.MORE_DAMAGE: reference_pb2.DRIFT_STATE_MORE_DAMAGE,
    DriftState.SCENE_CHANGED: reference_pb2.DRIFT_STATE_SCENE_CHANGED,
}
OPERATIONS: Final = {
    None: reference_pb2.REFERENCE_OPERATION_UNSPECIFIED,
    ReferenceOperation.LOAD: reference_pb2.REFERENCE_OPERATION_LOAD,
    ReferenceOperation.APPEND: reference_pb2.REFERENCE_OPERATION_APPEND,
    ReferenceOperation.TUNE: reference_pb2.REFERENCE_OPERATION_TUNE,
    ReferenceOperation.IMPORT: reference_pb2.REFERENCE_OPERATION_IMPORT,
}
METHODS: Final = {
    CalibrationMethod.LEAVE_ONE_OUT: reference_pb2.CALIBRATION_METHOD_LEAVE_ONE_OUT,
    CalibrationMethod.AUGMENTED_VIEWS: reference_pb2.CALIBRATION_METHOD_AUGMENTED_VIEWS,
}
SCALES: Final = {
    inference_pb2.HEATMAP_SCALE_UNSPECIFIED: None,
    inference_pb2.HEATMAP_SCALE_RELATIVE: HeatmapScale.RELATIVE,
    inference_pb2.HEATMAP_SCALE_CALIBRATED: HeatmapScale.CALIBRATED,
}
FORMATS: Final = {
    inference_pb2.OVERLAY_FORMAT_UNSPECIFIED: OverlayFormat.PNG,
    inference_pb2.OVERLAY_FORMAT_PNG: OverlayFormat.PNG,
    inference_pb2.OVERLAY_FORMAT_JPEG: OverlayFormat.JPEG,
    inference_pb2.OVERLAY_FORMAT_WEBP: OverlayFormat.WEBP,
}
OVERFLOWS: Final = {
    stream_pb2.OVERFLOW_POLICY_UNSPECIFIED: OverflowPolicy.BLOCK,
    stream_pb2.OVERFLOW_POLICY_BLOCK: OverflowPolicy.BLOCK,
    stream_pb2.OVERFLOW_POLICY_DROP_OLDEST: OverflowPolicy.DROP_OLDEST,
}
ORDERINGS: Final = {
    stream_pb2.RESULT_ORDERING_UNSPECIFIED: ResultOrdering.INPUT,
    stream_pb2.RESULT_ORDERING_INPUT: ResultOrdering.INPUT,
    stream_pb2.RESULT_ORDERING_COMPLETION: ResultOrdering.COMPLETION,
}
NOTICES: Final = {
    NoticeKind.DRAINING: stream_pb2.NOTICE_KIND_DRAINING,
    NoticeKind.REFERENCE_CHANGED: stream_pb2.NOTICE_KIND_REFERENCE_CHANGED,
}

Number = TypeVar("Number", bound=int)
Value = TypeVar("Value")


def enum_value(values: Mapping[Number, Value], number: Number, field: str) -> Value:
    """The domain's value for a number of the contract.

    Raises:
        InvalidInputError: the contract has no such number.
    """
    if number not in values:
        raise InvalidInputError(field, f"{field} is {number}; known values are 0 to {max(values)}.")
    return values[number]


def enum_number(values: Mapping[Number, Value], value: Value) -> Number:
    """The contract's number for a value; not UNSPECIFIED, if another number means the same."""
    return {domain: number for number, domain in values.items()}[value]
