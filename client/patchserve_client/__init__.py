"""Client of patchserve: ask a server whether images show damage.

from patchserve_client import Client

with Client("localhost:50051") as client:
    client.load_reference(["intact.jpg"])
    result = client.infer("parcel.jpg", overlay=True)
    print(result.anomaly.is_anomalous, result.anomaly.score)
"""

from patchserve_client._aio import AsyncClient
from patchserve_client._choices import (
    AspectRatio,
    CalibrationMethod,
    HeatmapScale,
    LoadMode,
    LoadStage,
    NoticeKind,
    OverflowPolicy,
    OverlayFormat,
    ResultOrdering,
    ScoringProfile,
)
from patchserve_client._client import Client
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
from patchserve_client._options import InferOptions, LoadOptions, OutputOptions, StreamOptions
from patchserve_client._server_types import Health, Limits, ServerInfo
from patchserve_client._tls import TlsConfig
from patchserve_client._types import (
    AnomalyScore,
    BoundingBox,
    Calibration,
    DamageScore,
    EncodedOverlay,
    EncodedReferenceImage,
    Frame,
    FrameResult,
    ImageSource,
    InferenceResult,
    LoadProgress,
    Polygon,
    ReferenceImage,
    ReferenceInfo,
    Region,
    ScoreSpread,
    StreamNotice,
    Timing,
)

__all__ = [
    "Aborted",
    "AnomalyScore",
    "AspectRatio",
    "AsyncClient",
    "BoundingBox",
    "Calibration",
    "CalibrationMethod",
    "Cancelled",
    "Client",
    "DamageScore",
    "DeadlineExceeded",
    "EncodedOverlay",
    "EncodedReferenceImage",
    "ErrorDetails",
    "FailedPrecondition",
    "FieldViolation",
    "Frame",
    "FrameResult",
    "Health",
    "HeatmapScale",
    "ImageSource",
    "InferOptions",
    "InferenceResult",
    "Internal",
    "InvalidArgument",
    "Limits",
    "LoadMode",
    "LoadOptions",
    "LoadProgress",
    "LoadStage",
    "NotFound",
    "NoticeKind",
    "OutputOptions",
    "OverflowPolicy",
    "OverlayFormat",
    "PatchserveError",
    "PermissionDenied",
    "Polygon",
    "PreconditionViolation",
    "ReferenceImage",
    "ReferenceInfo",
    "Region",
    "ResourceExhausted",
    "ResultOrdering",
    "ScoreSpread",
    "ScoringProfile",
    "ServerInfo",
    "StreamNotice",
    "StreamOptions",
    "Timing",
    "TlsConfig",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]
