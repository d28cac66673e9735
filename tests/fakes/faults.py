"""Errors of the fake server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True)
class Fault:
    """An error with google.rpc details, like the real server's. Without a reason it is like a lost connection."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    details: Sequence[Message] = ()

    def status(self) -> status_pb2.Status:
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain="patchserve.v1")
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in (info, *self.details):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    def _pushback(self) -> list[tuple[str, str]]:
        delays = [detail.retry_delay for detail in self.details if isinstance(detail, error_details_pb2.RetryInfo)]
        return [("grpc-retry-pushback-ms", str(delay.ToMilliseconds())) for delay in delays]

    async def abort(self, context: Context) -> NoReturn:
        if self.reason:
            status = self.status()
            trailing = (("grpc-status-details-bin", status.SerializeToString()), *self._pushback())
            await context.abort(self.code, self.message, trailing)
        await context.abort(self.code, self.message)


def bad_image(what: str = "image") -> Fault:
    violation = error_details_pb2.BadRequest.FieldViolation(field=what, description="Not an image.")
    details = [error_details_pb2.BadRequest(field_violations=[violation])]
    return Fault(grpc.StatusCode.INVALID_ARGUMENT, "The bytes are not an image.", "UNDECODABLE_IMAGE", details)


def not_found(reference_id: str) -> Fault:
    details = [error_details_pb2.ResourceInfo(resource_type="Reference", resource_name=reference_id)]
    message = f'There is no reference "{reference_id}".'
    return Fault(grpc.StatusCode.NOT_FOUND, message, "REFERENCE_NOT_FOUND", details)


def mismatch(reference_id: str) -> Fault:
    violation = error_details_pb2.PreconditionFailure.Violation(type="REVISION_MISMATCH", subject=reference_id)
    details = [error_details_pb2.PreconditionFailure(violations=[violation])]
    return Fault(grpc.StatusCode.FAILED_PRECONDITION, "It has another revision.", "REVISION_MISMATCH", details)


def changed(reference_id: str) -> Fault:
    details = [error_details_pb2.ResourceInfo(resource_type="Reference", resource_name=reference_id)]
    return Fault(grpc.StatusCode.ABORTED, "Another call changed it.", "REFERENCE_CHANGED", details)


def unavailable(reason: str = "DRAINING", retry_after_s: float = 0.001) -> Fault:
    """With a delay, as the server sends it for programs and for gRPC."""
    delay = Duration()
    delay.FromTimedelta(timedelta(seconds=retry_after_s))
    details = [error_details_pb2.RetryInfo(retry_delay=delay)]
    return Fault(grpc.StatusCode.UNAVAILABLE, "Continue with another server.", reason, details)


def dropped() -> Fault:
    return Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "A newer frame replaced it.", "FRAME_DROPPED")
