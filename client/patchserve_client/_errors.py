"""The error tree, and the one place where gRPC's errors become it."""

# ruff: noqa: N818 - the classes are named after the gRPC codes that they stand for
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that the server refused."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """Something on the server that the request did not fit."""

    type: str
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What a server says beside code and message (google.rpc error details)."""

    reason: str = ""
    retry_after_s: float | None = None
    field_violations: tuple[FieldViolation, ...] = ()
    precondition_violations: tuple[PreconditionViolation, ...] = ()
    resource_name: str = ""
    request_id: str = ""


class PatchserveError(Exception):
    """The root of all that a server or the way to it can answer with.

    `code` is the gRPC code, such as "NOT_FOUND". `reason` is the server's machine-readable name for the case, such as
    "REFERENCE_NOT_FOUND", and empty where no server was reached. `retry_after_s` is when trying again makes sense; None
    where the server does not say.
    """

    default_code: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, details: ErrorDetails = ErrorDetails(), code: str = "") -> None:
        super().__init__(message, details, code)
        self.message = message
        self.details = details
        self.code = code or self.default_code
        self.reason = details.reason
        self.retry_after_s = details.retry_after_s
        self.field_violations = details.field_violations
        self.precondition_violations = details.precondition_violations
        self.resource_name = details.resource_name
        self.request_id = details.request_id

    def __str__(self) -> str:
        return self.message


class Aborted(PatchserveError):
    """Another call changed the same thing at the same time; trying again is sound."""

    default_code = "ABORTED"


class Cancelled(PatchserveError):
    """The call was cancelled, as by closing the client."""

    default_code = "CANCELLED"


class DeadlineExceeded(PatchserveError):
    """No answer in time."""

    default_code = "DEADLINE_EXCEEDED"


class FailedPrecondition(PatchserveError):
    """The request is sound but does not fit what is there, such as another revision."""

    default_code = "FAILED_PRECONDITION"


class Internal(PatchserveError):
    """A bug in the server; `request_id` finds it in the server's log."""

    default_code = "INTERNAL"


class InvalidArgument(PatchserveError):
    """A request that can never succeed as it is; `field_violations` says where."""

    default_code = "INVALID_ARGUMENT"


class NotFound(PatchserveError):
    """There is no such reference."""

    default_code = "NOT_FOUND"


class PermissionDenied(PatchserveError):
    """The caller may not do this."""

    default_code = "PERMISSION_DENIED"


class ResourceExhausted(PatchserveError):
    """A bound was reached: queue, memory, message size, or a dropped frame."""

    default_code = "RESOURCE_EXHAUSTED"


class Unauthenticated(PatchserveError):
    """No valid token."""

    default_code = "UNAUTHENTICATED"


class Unavailable(PatchserveError):
    """No server there (`reason` is empty), or it cannot serve just now."""

    default_code = "UNAVAILABLE"


class Unimplemented(PatchserveError):
    """Another kind of server, or an older one."""

    default_code = "UNIMPLEMENTED"


# What grpcio says of a call that the server's gRPC threw away unread as it stopped. Our own cancellations differ.
_NEVER_BEGUN = ("CANCELLED", "Received RST_STREAM with error code 8")

_BY_CODE = {error.default_code: error for error in PatchserveError.__subclasses__()}


def from_status(status: status_pb2.Status) -> PatchserveError:
    """The error that a google.rpc.Status tells of."""
    code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    return _error(code.name, status.message, _details(status))


@contextmanager
def translated(server: str) -> Iterator[None]:
    """Raises gRPC's errors as this module's. `server` is the address that a message names.

    Raises:
        PatchserveError: whichever the code calls for.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise _from_rpc_error(error, server) from error
    except grpc.FutureCancelledError as error:
        raise Cancelled("The call was cancelled, as by closing the client.") from error


def _from_rpc_error(error: grpc.RpcError, server: str) -> PatchserveError:
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):  # details that contradict the status line or are none: the line stands
        status = None
    if status is not None:
        return from_status(status)
    text = error.details() or "no details"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        text = f"No server answers at {server}: {text}"
    elif error.code() is grpc.StatusCode.CANCELLED and text in _NEVER_BEGUN:
        return Unavailable(f"The server at {server} stopped before it began this call.")
    elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        text = f"No answer from {server} in time; the deadline is timeout_s."
    return _error(error.code().name, text, ErrorDetails())


def _error(code: str, message: str, details: ErrorDetails) -> PatchserveError:
    return _BY_CODE.get(code, PatchserveError)(message, details, code)


def _details(status: status_pb2.Status) -> ErrorDetails:
    info = _unpacked(status, error_details_pb2.ErrorInfo())
    retry = _unpacked(status, error_details_pb2.RetryInfo())
    return ErrorDetails(
        reason=info.reason,
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        field_violations=tuple(
            FieldViolation(violation.field, violation.description)
            for violation in _unpacked(status, error_details_pb2.BadRequest()).field_violations
        ),
        precondition_violations=tuple(
            PreconditionViolation(violation.type, violation.subject, violation.description)
            for violation in _unpacked(status, error_details_pb2.PreconditionFailure()).violations
        ),
        resource_name=_unpacked(status, error_details_pb2.ResourceInfo()).resource_name,
        request_id=_unpacked(status, error_details_pb2.RequestInfo()).request_id,
    )


def _unpacked(status: status_pb2.Status, message: _M) -> _M:
    """`message` filled from the detail of its type; left empty where the status has none."""
    for detail in status.details:
        try:
            if detail.Unpack(message):
                break
        except DecodeError:  # a damaged detail must not hide the error that it comes with
            message.Clear()
    return message
