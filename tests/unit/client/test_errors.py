"""gRPC's errors become one tree, with every detail of the server."""

from __future__ import annotations

import pickle

import grpc
import pytest
from fakes.faults import Fault
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

import patchserve_client
from patchserve_client import (
    DeadlineExceeded,
    FieldViolation,
    NotFound,
    PatchserveError,
    PreconditionViolation,
    Unavailable,
)
from patchserve_client._address import parsed
from patchserve_client._connection import Connection
from patchserve_client._errors import from_status, translate_errors

CONNECTION = Connection(parsed("host:1"), 30, 600, None, None, 64)

SERVER_CODES = {
    "INVALID_ARGUMENT": patchserve_client.InvalidArgument,
    "NOT_FOUND": patchserve_client.NotFound,
    "FAILED_PRECONDITION": patchserve_client.FailedPrecondition,
    "ABORTED": patchserve_client.Aborted,
    "RESOURCE_EXHAUSTED": patchserve_client.ResourceExhausted,
    "UNAVAILABLE": patchserve_client.Unavailable,
    "DEADLINE_EXCEEDED": patchserve_client.DeadlineExceeded,
    "UNAUTHENTICATED": patchserve_client.Unauthenticated,
    "PERMISSION_DENIED": patchserve_client.PermissionDenied,
    "INTERNAL": patchserve_client.Internal,
    "CANCELLED": patchserve_client.Cancelled,
    "UNIMPLEMENTED": patchserve_client.Unimplemented,
}


def rpc_error(code: grpc.StatusCode, details: str, trailing: bytes | None = None) -> grpc.aio.AioRpcError:
    metadata = [("grpc-status-details-bin", trailing)] if trailing is not None else []
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details)


def raised(error: grpc.RpcError) -> PatchserveError:
    with pytest.raises(PatchserveError) as caught, translate_errors(CONNECTION):
        raise error
    return caught.value


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_has_its_class_and_keeps_its_name(code: grpc.StatusCode) -> None:
    error = from_status(Fault(code, "text", "REASON").status())
    assert type(error) is SERVER_CODES.get(code.name, PatchserveError)
    assert (error.code, error.reason, error.message, str(error)) == (code.name, "REASON", "text", "text")


def test_an_unknown_code_is_unknown() -> None:
    error = from_status(status_pb2.Status(code=999, message="?"))
    assert (type(error), error.code) == (PatchserveError, "UNKNOWN")


def test_every_detail_is_converted() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    field = error_details_pb2.BadRequest.FieldViolation(field="image", description="empty")
    condition = error_details_pb2.PreconditionFailure.Violation(type="REVISION", subject="belt", description="other")
    fault = Fault(
        grpc.StatusCode.NOT_FOUND,
        "text",
        "REASON",
        [
            retry,
            error_details_pb2.BadRequest(field_violations=[field]),
            error_details_pb2.PreconditionFailure(violations=[condition]),
            error_details_pb2.ResourceInfo(resource_type="Reference", resource_name="belt"),
            error_details_pb2.RequestInfo(request_id="42"),
        ],
    )
    error = raised(rpc_error(fault.code, fault.message, fault.status().SerializeToString()))
    assert isinstance(error, NotFound)
    assert error.reason == "REASON"
    assert error.retry_after_s == 1.5
    assert error.field_violations == (FieldViolation("image", "empty"),)
    assert error.precondition_violations == (PreconditionViolation("REVISION", "belt", "other"),)
    assert error.resource_name == "belt"
    assert error.request_id == "42"


def test_details_of_an_unknown_kind_are_skipped() -> None:
    status = Fault(grpc.StatusCode.NOT_FOUND, "text", "REASON").status()
    status.details.insert(0, AnyMessage(type_url="type.googleapis.com/what.Ever", value=b"\xff\xff"))
    assert from_status(status).reason == "REASON"


@pytest.mark.parametrize(
    "trailing",
    [
        b"\xff no protobuf",
        Fault(grpc.StatusCode.ABORTED, "text", "REASON").status().SerializeToString(),
        Fault(grpc.StatusCode.NOT_FOUND, "another text", "REASON").status().SerializeToString(),
    ],
)
def test_details_that_contradict_the_status_line_are_ignored(trailing: bytes) -> None:
    error = raised(rpc_error(grpc.StatusCode.NOT_FOUND, "text", trailing))
    assert (type(error), error.message, error.reason) == (NotFound, "text", "")


def test_damaged_details_do_not_hide_the_error() -> None:
    status = Fault(grpc.StatusCode.NOT_FOUND, "text").status()
    status.details.append(AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff"))
    error = raised(rpc_error(grpc.StatusCode.NOT_FOUND, "text", status.SerializeToString()))
    assert isinstance(error, NotFound)
    assert error.message == "text"


def test_connection_errors_name_the_server() -> None:
    error = raised(rpc_error(grpc.StatusCode.UNAVAILABLE, "Connection refused"))
    assert isinstance(error, Unavailable)
    assert error.message == "No server answers at host:1: Connection refused"
    assert error.reason == ""
    late = raised(rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
    assert isinstance(late, DeadlineExceeded)
    assert "host:1" in late.message
    assert "timeout_s" in late.message


@pytest.mark.parametrize("text", ["CANCELLED", "Received RST_STREAM with error code 8"])
def test_a_call_that_a_stopping_server_discarded_is_unavailable(text: str) -> None:
    error = raised(rpc_error(grpc.StatusCode.CANCELLED, text))
    assert isinstance(error, Unavailable)
    assert (error.code, error.reason) == ("UNAVAILABLE", "")
    assert "host:1" in error.message
    own = raised(rpc_error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
    assert isinstance(own, patchserve_client.Cancelled)


def test_an_error_can_be_pickled() -> None:
    error = from_status(Fault(grpc.StatusCode.NOT_FOUND, "text", "REASON").status())
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is NotFound
    assert (again.message, again.reason, again.code) == ("text", "REASON", "NOT_FOUND")


def test_other_exceptions_are_not_changed() -> None:
    with pytest.raises(KeyError), translate_errors(CONNECTION):
        raise KeyError("mine")
