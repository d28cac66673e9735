"""The routes below /v2. What the messages mean, `contract` knows; here they are read from and written as HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from google.rpc import status_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.contract import kserve_operations
from patchserve_server.contract.methods import KSERVE, METHODS
from patchserve_server.serving.admission import Capacity
from patchserve_server.serving.readiness import Readiness
from patchserve_server.web.calls import Calls, Endpoint, HttpCall, ProbeHandler
from patchserve_server.web.errors import headers_of, http_status
from patchserve_server.web.open_inference.json_text import parsed_bytes
from patchserve_server.web.open_inference.request import HEADER_LENGTH, InferBody, infer_body, split_body
from patchserve_server.web.open_inference.response import as_json, infer_content

EXTENSIONS: Final = ["binary_tensor_data"]
_ANY_METHOD: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]

Operation = Callable[[HttpCall], Awaitable[Response]]


def error_response(status: status_pb2.Status) -> JSONResponse:
    return JSONResponse({"error": status.message}, http_status(status), headers_of(status))


def routes(calls: Calls, readiness: Readiness) -> list[BaseRoute]:
    def method(name: str, operation: Operation) -> Endpoint:
        return calls.endpoint(name, METHODS[f"/{KSERVE}/{name}"], operation, error_response)

    def probe(name: str, operation: ProbeHandler) -> Endpoint:
        return calls.probe(name, METHODS[f"/{KSERVE}/{name}"], operation, error_response)

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        is_ready = readiness.is_serving
        return JSONResponse({"ready": is_ready}, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def model_ready(request: Request) -> Response:
        message = pb.ModelReadyRequest(**_of_path(request))
        is_ready = (await kserve_operations.model_ready(message, readiness)).ready
        content = {"name": message.name, "ready": is_ready}
        return JSONResponse(content, HTTPStatus.OK if is_ready else HTTPStatus.NOT_FOUND)

    return [
        Route("/v2/health/live", probe("ServerLive", live)),
        Route("/v2/health/ready", probe("ServerReady", ready)),
        Route("/v2", method("ServerMetadata", _server_metadata)),
        *_of_model("/ready", probe("ModelReady", model_ready)),
        *_of_model("/config", method("ModelConfig", _model_config)),
        *_of_model("/infer", method("ModelInfer", _model_infer), "POST"),
        *_of_model("", method("ModelMetadata", _model_metadata)),
        Route("/v2/{rest:path}", _unsupported, methods=_ANY_METHOD),
    ]


def _of_model(path: str, endpoint: Endpoint, verb: str = "GET") -> list[BaseRoute]:
    places = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    return [Route(place + path, endpoint, methods=[verb]) for place in places]


async def _unsupported(request: Request) -> Response:
    """Triton has many more methods: statistics, its repository, shared memory, traces."""
    path = ascii(request.url.path[:100])[1:-1]
    message = f"This server does not support {request.method} {path}; docs/kserve.md lists what it supports."
    return JSONResponse({"error": message}, HTTPStatus.NOT_IMPLEMENTED)


async def _server_metadata(call: HttpCall) -> Response:
    response = await kserve_operations.server_metadata(pb.ServerMetadataRequest(), call)
    return JSONResponse({**as_json(response), "extensions": EXTENSIONS})


async def _model_metadata(call: HttpCall) -> Response:
    return JSONResponse(
        as_json(await kserve_operations.model_metadata(pb.ModelMetadataRequest(**_of_path(call.request)), call))
    )


async def _model_config(call: HttpCall) -> Response:
    response = await kserve_operations.model_config(pb.ModelConfigRequest(**_of_path(call.request)), call)
    return JSONResponse(as_json(response.config))


async def _model_infer(call: HttpCall) -> Response:
    body = await _infer_body(call)
    response = await kserve_operations.model_infer(body.message, call)
    limit_bytes = call.application.limits.max_message_bytes
    content, json_length = await asyncio.to_thread(infer_content, response, body, limit_bytes)
    if json_length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={HEADER_LENGTH: str(json_length)}, media_type="application/octet-stream")


async def _infer_body(call: HttpCall) -> InferBody:
    headers, path = call.request.headers, _of_path(call.request)
    body = await call.body.read()
    text, data = split_body(body, headers.get(HEADER_LENGTH))
    parts_bytes = await asyncio.to_thread(parsed_bytes, text)
    call.permit.grow(Capacity(bytes=len(body) + parts_bytes))  # before it is parsed
    return await asyncio.to_thread(infer_body, path["name"], path["version"], text, data)


def _of_path(request: Request) -> dict[str, Any]:
    """Name and version of the model in the path of a request; an empty version means any."""
    path = request.path_params
    return {"name": path["name"], "version": path.get("version", "")}
