"""The table of methods: the required scope, the permit needed before the message is read, and the time limit."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from patchserve.kserve import open_inference_pb2
from patchserve.v1 import service_pb2
from patchserve_server.domain.callers import Scope
from patchserve_server.rpc.reflection import REFLECTION_V1
from patchserve_server.serving.application import ServerLimits

SERVICE: Final = service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"].full_name
KSERVE: Final = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH: Final[str] = health.SERVICE_NAME
REFLECTION: Final[str] = reflection.SERVICE_NAME

OPEN: Final = "open"  # no token is needed
ANY_SCOPE: Final = "any"  # a valid token with any scopes
RequiredScope: TypeAlias = Scope | Literal["open", "any"]


class InitialPermit(enum.Enum):
    """The permit that a call needs before its message is read, so that a rejected caller cannot send it."""

    NOTHING = enum.auto()
    IMAGE = enum.auto()
    LOAD = enum.auto()


class TimeLimit(enum.Enum):
    """How long the server works on a call whose caller sets no deadline."""

    CALL = enum.auto()  # --default-timeout-s
    LOAD = enum.auto()  # --load-timeout-s


@dataclass(frozen=True, slots=True)
class Method:
    """What the adapter needs to know about a method.

    Args:
        scope: the scope that the caller's token needs.
        initial_permit: the permit that a call needs at its start.
        time_limit: for a call with one response. A stream of responses has no time limit.
        always_answered: a probe, answered also while the server starts or is full. It needs no permit, does not count
            for `--max-calls`, and has its own short time limit.
        is_audited: logged with the caller's name at level INFO, because the call changes what other callers get.
        is_health_check: passed to gRPC's own servicer as it is, without a request id or a line in the log.
    """

    scope: RequiredScope
    initial_permit: InitialPermit = InitialPermit.NOTHING
    time_limit: TimeLimit = TimeLimit.CALL
    always_answered: bool = False
    is_audited: bool = False
    is_health_check: bool = False

    def __post_init__(self) -> None:
        if self.always_answered and self.initial_permit is not InitialPermit.NOTHING:
            raise ValueError("A method that is always answered needs no permit.")

    def timeout_s(self, limits: ServerLimits) -> float:
        """The time limit of a call without a deadline."""
        return limits.load_timeout_s if self.time_limit is TimeLimit.LOAD else limits.default_timeout_s


_INFER: Final = Method(Scope.INFER)
_MANAGE: Final = Method(Scope.MANAGE)
_LOAD: Final = Method(Scope.MANAGE, InitialPermit.LOAD, TimeLimit.LOAD, is_audited=True)
_PROBE: Final = Method(OPEN, always_answered=True)
_HEALTH_CHECK: Final = Method(OPEN, always_answered=True, is_health_check=True)

METHODS: Final[dict[str, Method]] = {
    f"/{SERVICE}/Infer": Method(Scope.INFER, InitialPermit.IMAGE),
    f"/{SERVICE}/InferStream": _INFER,
    f"/{SERVICE}/GetServerInfo": _INFER,
    f"/{SERVICE}/GetReference": _INFER,
    f"/{SERVICE}/ListReferences": _INFER,
    f"/{SERVICE}/LoadReference": _LOAD,
    f"/{SERVICE}/LoadReferenceStream": _LOAD,
    f"/{SERVICE}/ListLoads": _MANAGE,
    # As long as a load: the bank is saved again.
    f"/{SERVICE}/TuneReference": Method(Scope.MANAGE, time_limit=TimeLimit.LOAD, is_audited=True),
    f"/{SERVICE}/DeleteReference": Method(Scope.MANAGE, is_audited=True),
    f"/{KSERVE}/ServerMetadata": _INFER,
    f"/{KSERVE}/ModelMetadata": _INFER,
    f"/{KSERVE}/ModelConfig": _INFER,
    f"/{KSERVE}/ModelInfer": Method(Scope.INFER, InitialPermit.IMAGE),
    f"/{KSERVE}/ModelStreamInfer": _INFER,
    f"/{KSERVE}/ModelReady": Method(Scope.INFER, always_answered=True),
    # Orchestrators and load balancers have no token.
    f"/{KSERVE}/ServerLive": _PROBE,
    f"/{KSERVE}/ServerReady": _PROBE,
    f"/{HEALTH}/Check": _HEALTH_CHECK,
    f"/{HEALTH}/Watch": _HEALTH_CHECK,
    f"/{HEALTH}/List": _HEALTH_CHECK,  # gRPC's servicer answers UNIMPLEMENTED
    # The contract is public, but which services this server has is not.
    f"/{REFLECTION}/ServerReflectionInfo": Method(ANY_SCOPE, always_answered=True),
    f"/{REFLECTION_V1}/ServerReflectionInfo": Method(ANY_SCOPE, always_answered=True),
}
"""All methods of all services on the port, by full name. The adapter rejects calls of other methods."""
