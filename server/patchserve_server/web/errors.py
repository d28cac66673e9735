"""The HTTP code of each google.rpc.Code."""

from __future__ import annotations

import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from google.rpc import code_pb2, error_details_pb2, status_pb2
from starlette.responses import Response

from patchserve_server.web.message_json import json_of

ErrorFormat = Callable[[status_pb2.Status], Response]
"""How a face of HTTP writes an error."""

# As google/rpc/code.proto maps them.
_CODES: Final[dict[int, HTTPStatus]] = {
    code_pb2.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    code_pb2.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    code_pb2.NOT_FOUND: HTTPStatus.NOT_FOUND,
    code_pb2.ABORTED: HTTPStatus.CONFLICT,
    code_pb2.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    code_pb2.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    code_pb2.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    code_pb2.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    code_pb2.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    code_pb2.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    code_pb2.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}
# Of a WebSocket (RFC 6455 and its registry). 1008, against the rules of this server, for all others: the same would
# fail again.
_CLOSE_CODES: Final[dict[int, int]] = {
    code_pb2.OK: 1000,
    code_pb2.INTERNAL: 1011,
    code_pb2.UNAVAILABLE: 1013,  # try again later
    code_pb2.ABORTED: 1013,
    code_pb2.RESOURCE_EXHAUSTED: 1013,
}
_DRAINING: Final = 1001  # the server goes away; another one may be there
# Reasons for which HTTP has a code that says more.
_REASONS: Final[dict[str, HTTPStatus]] = {
    "HEADERS_TOO_LARGE": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "REQUEST_TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "IMAGE_TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "UNSUPPORTED_MEDIA_TYPE": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "UPGRADE_REQUIRED": HTTPStatus.UPGRADE_REQUIRED,
    "HTTP_METHOD": HTTPStatus.METHOD_NOT_ALLOWED,
}


def reason_of(status: status_pb2.Status) -> str:
    """The reason in its ErrorInfo."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def http_status(status: status_pb2.Status) -> HTTPStatus:
    return _REASONS.get(reason_of(status)) or _CODES[status.code]


def close_code(status: status_pb2.Status) -> int:
    """The code with which a WebSocket is closed."""
    return _DRAINING if reason_of(status) == "DRAINING" else _CLOSE_CODES.get(status.code, 1008)


def headers_of(status: status_pb2.Status) -> dict[str, str]:
    """`Retry-After` for a RetryInfo, `WWW-Authenticate` for a caller without a valid token."""
    headers: dict[str, str] = {}
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            headers["retry-after"] = str(max(1, math.ceil(retry.retry_delay.ToTimedelta().total_seconds())))
    if status.code == code_pb2.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return headers


def status_response(status: status_pb2.Status) -> Response:
    """The whole status, in protobuf's JSON mapping."""
    return Response(json_of(status), http_status(status), headers_of(status), media_type="application/json")
