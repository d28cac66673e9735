"""The errors of Ray as errors of the contract, with their details: so clients know which calls to repeat."""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final

import grpc
from grpc_status import rpc_status

from patchserve_server.contract.status import status_of
from patchserve_server.domain.errors import (
    DeadlineError,
    EngineLostError,
    NotReadyError,
    PatchserveError,
    QueueFullError,
)
from patchserve_server.rpc.pushback import pushback

_DETAILS: Final = "grpc-status-details-bin"
_APPLICATION: Final = "application"  # the metadata that names one of Ray Serve's applications
_RETRY_AFTER_S: Final = 1.0
_NO_APPLICATION: Final = (
    "The application is not deployed yet; or there are several, and the metadata `application` names none of them."
)

_log = logging.getLogger(__name__)


def mend_status(context: Any) -> None:  # noqa: ANN401 - gRPC's
    """Replace a status that Ray has made. Those of replicas have details."""
    trailing = list(context.trailing_metadata() or ())
    if any(key == _DETAILS for key, _ in trailing) or (error := _error_of(context)) is None:
        return
    _log.warning("Ray: %s: %s", context.code(), context.details())
    mended = status_of(error, secrets.token_hex(16))
    status = rpc_status.to_status(mended)
    context.set_code(status.code)
    context.set_details(status.details)
    context.set_trailing_metadata([*trailing, *status.trailing_metadata, *pushback(mended)])


def _error_of(context: Any) -> PatchserveError | None:  # noqa: ANN401
    """The error of the contract; None: the call is OK, or its caller has asked for something else."""
    match context.code():
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNAVAILABLE:  # the replica or its node has ended
            return EngineLostError()
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return QueueFullError("Too many calls wait for a replica.", _RETRY_AFTER_S)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError("The request_timeout_s of Ray's proxy has passed.")
        case grpc.StatusCode.NOT_FOUND if not _names_application(context):
            return NotReadyError(_NO_APPLICATION, _RETRY_AFTER_S)
    return None


def _names_application(context: Any) -> bool:  # noqa: ANN401
    return any(key == _APPLICATION for key, _ in context.invocation_metadata() or ())
