"""Converts errors to google.rpc.Status: the only table of codes, and the details of each kind of error."""

from __future__ import annotations

import logging
from typing import Final

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from patchserve_server.domain import errors, http_errors

DOMAIN: Final = "patchserve.v1"
_REFERENCE_TYPE: Final = "patchserve.v1.Reference"

_log = logging.getLogger(__name__)

# An error has the code of its nearest base class in this table.
CODES: Final[dict[type[errors.PatchserveError], int]] = {
    errors.InvalidInputError: code_pb2.INVALID_ARGUMENT,
    errors.ReferenceNotFoundError: code_pb2.NOT_FOUND,
    errors.ImageNotKeptError: code_pb2.NOT_FOUND,
    errors.UnknownServiceError: code_pb2.NOT_FOUND,
    http_errors.UnknownPathError: code_pb2.NOT_FOUND,
    http_errors.HttpMethodError: code_pb2.UNIMPLEMENTED,
    http_errors.OutputNotFoundError: code_pb2.NOT_FOUND,
    errors.PreconditionError: code_pb2.FAILED_PRECONDITION,
    errors.ReferenceChangedError: code_pb2.ABORTED,
    errors.ExhaustedError: code_pb2.RESOURCE_EXHAUSTED,
    errors.UnavailableError: code_pb2.UNAVAILABLE,
    errors.DeadlineError: code_pb2.DEADLINE_EXCEEDED,
    errors.UnauthenticatedError: code_pb2.UNAUTHENTICATED,
    errors.PermissionDeniedError: code_pb2.PERMISSION_DENIED,
    http_errors.OtherSiteError: code_pb2.PERMISSION_DENIED,
    http_errors.UnknownHostError: code_pb2.PERMISSION_DENIED,
}


def status_of(error: BaseException, request_id: str) -> status_pb2.Status:
    """The status of an error. A bug becomes INTERNAL with the request id; only the log has the details."""
    if isinstance(error, errors.PatchserveError):
        for kind in type(error).__mro__:
            if kind in CODES:
                return _status(CODES[kind], error.message, error.reason, _details(error))
    _log.error("Request %s failed", request_id, exc_info=error)
    message = f"Internal error. The server's log has details under request id {request_id}."
    return _status(code_pb2.INTERNAL, message, "INTERNAL", [error_details_pb2.RequestInfo(request_id=request_id)])


def _status(code: int, message: str, reason: str, details: list[Message]) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    packed = []
    for detail in (info, *details):
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=message, details=packed)


def _details(error: errors.PatchserveError) -> list[Message]:
    match error:
        case errors.InvalidInputError():
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=error.field, description=error.message, reason=error.reason
            )
            return [error_details_pb2.BadRequest(field_violations=[violation])]
        case errors.ReferenceNotFoundError() | errors.ReferenceChangedError():
            return [
                error_details_pb2.ResourceInfo(
                    resource_type=_REFERENCE_TYPE, resource_name=error.reference_id, description=error.message
                )
            ]
        case errors.PreconditionError():
            broken = error_details_pb2.PreconditionFailure.Violation(
                type=error.reason, subject=error.subject, description=error.message
            )
            return [error_details_pb2.PreconditionFailure(violations=[broken])]
        case errors.TemporaryError() if error.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(error.retry_after_s * 1e9))
            return [error_details_pb2.RetryInfo(retry_delay=delay)]
        case _:
            return []
