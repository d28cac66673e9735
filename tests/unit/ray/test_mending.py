"""Errors of Ray's proxy as errors of the contract."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from patchserve_server.ray.mending import mend_status

OK, CODES = grpc.StatusCode.OK, grpc.StatusCode


class Context:
    """gRPC's context in a proxy, after Ray has answered."""

    def __init__(self, code: grpc.StatusCode | int, metadata: dict[str, str], trailing: dict[str, Any]) -> None:
        self._code, self._details = code, "from Ray"
        self._metadata, self._trailing = metadata, list(trailing.items())

    def code(self) -> grpc.StatusCode | int:
        return self._code

    def details(self) -> str:
        return self._details

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return list(self._metadata.items())

    def trailing_metadata(self) -> list[tuple[str, Any]]:
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, trailing: list[tuple[str, Any]]) -> None:
        self._trailing = trailing


def mended(
    code: grpc.StatusCode | int, metadata: dict[str, str] | None = None, trailing: dict[str, Any] | None = None
) -> Context:
    context = Context(code, metadata or {}, {"request_id": "7", **(trailing or {})})
    mend_status(context)
    return context


@pytest.mark.parametrize(
    ("code", "becomes", "reason", "is_temporary"),
    [
        (CODES.INTERNAL, CODES.UNAVAILABLE, "ENGINE_LOST", True),
        (CODES.UNAVAILABLE, CODES.UNAVAILABLE, "ENGINE_LOST", True),
        (CODES.NOT_FOUND, CODES.UNAVAILABLE, "NOT_READY", True),
        (CODES.RESOURCE_EXHAUSTED, CODES.RESOURCE_EXHAUSTED, "QUEUE_FULL", True),
        (CODES.DEADLINE_EXCEEDED, CODES.DEADLINE_EXCEEDED, "DEADLINE", False),
    ],
)
def test_a_status_of_ray_gets_the_details_of_the_contract(
    code: grpc.StatusCode, becomes: grpc.StatusCode, reason: str, is_temporary: bool
) -> None:
    context = mended(code)
    assert context.code() == becomes
    trailing = dict(context.trailing_metadata())
    assert trailing["request_id"] == "7"
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert code_pb2.Code.Name(status.code) == becomes.name
    assert status.message == context.details()
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert info.reason == reason
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details) == is_temporary


@pytest.mark.parametrize(
    "context",
    [
        mended(0),
        mended(CODES.OK),
        mended(CODES.CANCELLED),
        mended(CODES.INTERNAL, trailing={"grpc-status-details-bin": b"of a replica"}),
        mended(CODES.NOT_FOUND, {"application": "another"}),
    ],
    ids=["none", "OK", "cancelled", "of a replica", "an application that the caller has named"],
)
def test_every_other_status_stays(context: Context) -> None:
    assert context.details() == "from Ray"
