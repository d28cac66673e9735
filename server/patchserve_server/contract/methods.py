"""The table of methods: the required scope, the permit needed before the request is read, and the time limit."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from patchserve.kserve import open_inference_pb2
from patchserve.v1 import service_pb2
from patchserve_server.domain.callers import Scope
from patchserve_server.serving.application import ServerLimits

SERVICE: Final = service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"].full_name
KSERVE: Final = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

OPEN: Final = "open"  # no token is needed
ANY_SCOPE: Final = "any"  # a valid token with any scopes
RequiredScope: TypeAlias = Scope | Literal["open", "any"]

SMALL_MESSAGE_BYTES: Final = 8 * 2**10
MAX_TEXT_BYTES: Final = 1024  # of one string in a request; what a string means has narrower limits
_SMALL_MESSAGE_ELEMENTS: Final = 128
_LARGE_MESSAGE_ELEMENTS: Final = 4096  # a region of interest needs up to 2,000; images and their names come on top


class InitialPermit(enum.Enum):
    """The permit that a call needs before its request is read, so that a rejected caller cannot send it."""

    NOTHING = enum.auto()
    IMAGE = enum.auto()
    LOAD = enum.auto()


class RequestSize(enum.Enum):
    """The largest message of a caller. It is checked before the message is parsed."""

    SMALL = enum.auto()  # ids and options: SMALL_MESSAGE_BYTES
    LARGE = enum.auto()  # images and tensors: --max-message-mib


class TimeLimit(enum.Enum):
    """How long the server works on a call whose caller sets no deadline."""

    CALL = enum.auto()  # --default-timeout-s
    LOAD = enum.auto()  # --load-timeout-s


@dataclass(frozen=True, slots=True)
class Method:
    """What a face of the server needs to know about a method.

    Args:
        scope: the scope that the caller's token needs.
        initial_permit: the permit that a call needs at its start.
        time_limit: for a call with one request. A stream in both directions has no time limit.
        request_size: the largest message that a caller may send.
        always_answered: a probe, answered also while the server starts or is full. It needs no permit, does not count
            for `--max-calls`, and has its own short time limit.
        is_audited: logged with the caller's name at level INFO, because the call changes what other callers get.
        stays_open: a probe that lasts as long as its caller likes. So their number is limited.
    """

    scope: RequiredScope
    initial_permit: InitialPermit = InitialPermit.NOTHING
    time_limit: TimeLimit = TimeLimit.CALL
    request_size: RequestSize = RequestSize.SMALL
    always_answered: bool = False
    is_audited: bool = False
    stays_open: bool = False

    def __post_init__(self) -> None:
        if self.always_answered and self.initial_permit is not InitialPermit.NOTHING:
            raise ValueError("A method that is always answered needs no permit.")

    def timeout_s(self, limits: ServerLimits) -> tuple[float, float]:
        """The time limit of a call without a deadline, and the longest deadline that a caller may set."""
        if self.time_limit is TimeLimit.LOAD:
            return limits.load_timeout_s, limits.max_load_timeout_s
        return limits.default_timeout_s, limits.max_timeout_s

    def max_request_bytes(self, max_message_bytes: int) -> int:
        """The largest message of a caller."""
        is_small = self.request_size is RequestSize.SMALL
        return min(SMALL_MESSAGE_BYTES, max_message_bytes) if is_small else max_message_bytes

    def max_request_elements(self, max_reference_images: int) -> int:
        """How many fields and list elements a message may have."""
        is_small = self.request_size is RequestSize.SMALL
        return _SMALL_MESSAGE_ELEMENTS if is_small else _LARGE_MESSAGE_ELEMENTS + 2 * max_reference_images


_INFER: Final = Method(Scope.INFER)
_MANAGE: Final = Method(Scope.MANAGE)
_IMAGE: Final = Method(Scope.INFER, InitialPermit.IMAGE, request_size=RequestSize.LARGE)
_IMAGES: Final = Method(Scope.INFER, request_size=RequestSize.LARGE)
_LOAD: Final = Method(Scope.MANAGE, InitialPermit.LOAD, TimeLimit.LOAD, RequestSize.LARGE, is_audited=True)
PROBE: Final = Method(OPEN, always_answered=True)

METHODS: Final[dict[str, Method]] = {
    f"/{SERVICE}/Infer": _IMAGE,
    f"/{SERVICE}/InferStream": _IMAGES,
    f"/{SERVICE}/GetServerInfo": _INFER,
    f"/{SERVICE}/GetServerStats": _INFER,
    f"/{SERVICE}/GetReference": _INFER,
    f"/{SERVICE}/ListReferences": _INFER,
    f"/{SERVICE}/LoadReference": _LOAD,
    f"/{SERVICE}/LoadReferenceStream": _LOAD,
    f"/{SERVICE}/ListLoads": _MANAGE,
    # As long as a load: the bank is saved again.
    f"/{SERVICE}/TuneReference": Method(Scope.MANAGE, time_limit=TimeLimit.LOAD, is_audited=True),
    # It is read, verified and opened.
    f"/{SERVICE}/RestoreReference": Method(Scope.MANAGE, time_limit=TimeLimit.LOAD, is_audited=True),
    # A token that may change a reference sees what it would go back to.
    f"/{SERVICE}/GetReferenceHistory": _MANAGE,
    # The file has the images that the reference was built from. It takes space on a disk, and time, as a load does.
    f"/{SERVICE}/ExportReference": Method(Scope.MANAGE, InitialPermit.LOAD, TimeLimit.LOAD),
    f"/{SERVICE}/ImportReference": _LOAD,
    # An infer token may be in a camera: it can ask what a picture is like, but sees none of others.
    f"/{SERVICE}/GetReferenceImage": Method(Scope.MANAGE, InitialPermit.IMAGE),
    f"/{SERVICE}/DeleteReference": Method(Scope.MANAGE, is_audited=True),
    f"/{KSERVE}/ServerMetadata": _INFER,
    f"/{KSERVE}/ModelMetadata": _INFER,
    f"/{KSERVE}/ModelConfig": _INFER,
    f"/{KSERVE}/ModelInfer": _IMAGE,
    f"/{KSERVE}/ModelStreamInfer": _IMAGES,
    f"/{KSERVE}/ModelReady": Method(Scope.INFER, always_answered=True),
    # Orchestrators and load balancers have no token.
    f"/{KSERVE}/ServerLive": PROBE,
    f"/{KSERVE}/ServerReady": PROBE,
}
"""The methods of our contract and of the Open Inference Protocol, by full name."""
