"""The error tree, and the translation of gRPC's errors into it."""

# ruff: noqa: N818 - each class has the name of its gRPC code
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from patchserve_client._connection import Connection
from patchserve_client._connection_errors import sentence

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that the server rejected."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """A state of the server that the request does not fit."""

    type: str
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """The details that a server sends with code and message (google.rpc error details)."""

    reason: str = ""
    retry_after_s: float | None = None
    field_violations: tuple[FieldViolation, ...] = ()
    precondition_violations: tuple[PreconditionViolation, ...] = ()
    resource_name: str = ""
    request_id: str = ""


class PatchserveError(Exception):
    """Base class of all errors of a server or of the connection to it.

    `code` is the gRPC code, such as "NOT_FOUND". `reason` is the server's machine-readable name of the case, such as
    "REFERENCE_NOT_FOUND"; empty if no server was reached. `retry_after_s` is how long to wait before trying again; None
    if the server does not say.
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
    """Another call changed the same reference at the same time. Trying again is safe."""

    default_code = "ABORTED"


class Cancelled(PatchserveError):
    """The call was cancelled, for example because the client was closed."""

    default_code = "CANCELLED"


class DeadlineExceeded(PatchserveError):
    """There was no response in time."""

    default_code = "DEADLINE_EXCEEDED"


class FailedPrecondition(PatchserveError):
    """The request is valid but does not fit the server's state, for example another revision is current."""

    default_code = "FAILED_PRECONDITION"


class Internal(PatchserveError):
    """A bug in the server. Search the server's log for `request_id`."""

    default_code = "INTERNAL"


class InvalidArgument(PatchserveError):
    """The request cannot succeed without a change. `field_violations` says why."""

    default_code = "INVALID_ARGUMENT"


class NotFound(PatchserveError):
    """There is no such reference."""

    default_code = "NOT_FOUND"


class PermissionDenied(PatchserveError):
    """The caller may not do this."""

    default_code = "PERMISSION_DENIED"


class ResourceExhausted(PatchserveError):
    """A limit was reached: queue, memory, message size. Also a dropped frame."""

    default_code = "RESOURCE_EXHAUSTED"


class Unauthenticated(PatchserveError):
    """The token is missing or not valid."""

    default_code = "UNAUTHENTICATED"


class Unavailable(PatchserveError):
    """No server answers (`reason` is empty), or it cannot serve now."""

    default_code = "UNAVAILABLE"


class Unimplemented(PatchserveError):
    """The server does not have this method: it is older, or another kind of server."""

    default_code = "UNIMPLEMENTED"


# grpcio's message if a stopping server discards a call without reading it. Our cancellations have other messages.
_DISCARDED_UNREAD = ("CANCELLED", "Received RST_STREAM with error code 8")

_BY_CODE = {error.default_code: error for error in PatchserveError.__subclasses__()}


def from_status(status: status_pb2.Status) -> PatchserveError:
    """The error for a google.rpc.Status."""
    code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    return _error(code.name, status.message, _details(status))


@contextmanager
def translate_errors(connection: Connection) -> Iterator[None]:
    """Translate gRPC's errors of calls on a connection.

    Raises:
        PatchserveError: the subclass for the gRPC code.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise _from_rpc_error(error, connection) from error
    except grpc.FutureCancelledError as error:
        raise Cancelled("The call was cancelled, for example because the client was closed.") from error


def _from_rpc_error(error: grpc.RpcError, connection: Connection) -> PatchserveError:
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):  # the details are damaged or contradict the status line: use only the line
        status = None
    if status is not None:
        return from_status(status)
    text = error.details() or "no details"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        text = sentence(text, connection)
    elif error.code() is grpc.StatusCode.CANCELLED and text in _DISCARDED_UNREAD:
        return Unavailable(f"The server at {connection.server} stopped before it started this call.")
    elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        text = f"No answer from {connection.server} before the deadline; `timeout_s` sets it."
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
    """`message`, filled from the status detail of its type; empty if there is none."""
    for detail in status.details:
        try:
            if detail.Unpack(message):
                break
        except DecodeError:  # a damaged detail must not hide the error
            message.Clear()
    return message
