"""The client of patchserve: ask a server whether pictures show something that the undamaged ones do not.

from patchserve_client import Client

with Client("localhost:50051") as client:
    client.load_reference(["intact.jpg"])
    result = client.infer("parcel.jpg", overlay=True)
    print(result.anomaly.is_anomalous, result.anomaly.score)
"""

from patchserve_client._aio import AsyncClient
from patchserve_client._client import Client
from patchserve_client._connection import TlsConfig
from patchserve_client._errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    ErrorDetails,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    PatchserveError,
    PermissionDenied,
    PreconditionViolation,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from patchserve_client._types import (
    AnomalyScore,
    BoundingBox,
    Calibration,
    CalibrationMethod,
    DamageScore,
    Frame,
    FrameResult,
    Health,
    HeatmapScale,
    ImageSource,
    InferenceResult,
    Limits,
    LoadMode,
    NoticeKind,
    OverflowPolicy,
    ReferenceInfo,
    Region,
    ResultOrdering,
    ScoreSpread,
    ScoringProfile,
    ServerInfo,
    StreamNotice,
    Timing,
)

__all__ = [
    "Aborted",
    "AnomalyScore",
    "AsyncClient",
    "BoundingBox",
    "Calibration",
    "CalibrationMethod",
    "Cancelled",
    "Client",
    "DamageScore",
    "DeadlineExceeded",
    "ErrorDetails",
    "FailedPrecondition",
    "FieldViolation",
    "Frame",
    "FrameResult",
    "Health",
    "HeatmapScale",
    "ImageSource",
    "InferenceResult",
    "Internal",
    "InvalidArgument",
    "Limits",
    "LoadMode",
    "NotFound",
    "NoticeKind",
    "OverflowPolicy",
    "PatchserveError",
    "PermissionDenied",
    "PreconditionViolation",
    "ReferenceInfo",
    "Region",
    "ResourceExhausted",
    "ResultOrdering",
    "ScoreSpread",
    "ScoringProfile",
    "ServerInfo",
    "StreamNotice",
    "Timing",
    "TlsConfig",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]
