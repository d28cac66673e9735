"""The documented HTTP service, word for word: its routes, fields and errors."""

from __future__ import annotations

from google.rpc import status_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from patchserve_server.serving.readiness import Readiness
from patchserve_server.web.calls import Calls
from patchserve_server.web.errors import headers_of, http_status, reason_of


def error_response(status: status_pb2.Status) -> JSONResponse:
    content = {"status": "error", "error": status.message, "reason": reason_of(status)}
    return JSONResponse(content, http_status(status), headers_of(status))


def routes(calls: Calls, readiness: Readiness) -> list[Route]:
    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "healthy" if readiness.is_serving else "starting"})

    return [Route("/health", health)]
