"""The routes of the contract as JSON, and of its OpenAPI document."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from patchserve.v1 import inference_pb2, service_pb2
from patchserve_server.contract.methods import METHODS, SERVICE
from patchserve_server.contract.operations import OPERATIONS, infer_as
from patchserve_server.contract.status import status_of
from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.http_errors import HttpMethodError
from patchserve_server.web.calls import Calls, Endpoint, Handler, HttpCall
from patchserve_server.web.errors import status_response
from patchserve_server.web.message_json import json_of
from patchserve_server.web.transcoding.bindings import Binding, Router, bindings_of
from patchserve_server.web.transcoding.requests import off_loop, read_request

_JSON: Final = "application/json"


def routes(calls: Calls) -> list[BaseRoute]:
    """A route for each unary method of the contract, and `/openapi.json`."""
    bindings = bindings_of(service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"])
    transcoder = Transcoder(calls, bindings)
    first_segments = sorted({binding.template.segments[0] for binding in bindings})
    paths = [path for segment in first_segments for path in (f"/{segment}", f"/{segment}/{{path:path}}")]
    return [_openapi_route(), *(Route(path, transcoder) for path in paths)]


class Transcoder:
    """An application of ASGI: answers the calls of all bindings.

    It finds the method itself: Starlette matches the decoded path, in which the `/` of `a%2Fb` ends a segment.
    """

    def __init__(self, calls: Calls, bindings: list[Binding]) -> None:
        self._router = Router(bindings)
        self._endpoints = {binding: _endpoint(calls, binding) for binding in bindings}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            binding, scope["path_params"] = self._router.find(scope["method"], scope["raw_path"].decode("latin-1"))
        except PatchserveError as error:
            failed = status_response(status_of(error, ""))
            if isinstance(error, HttpMethodError):
                failed.headers["allow"] = ", ".join(error.allowed)
            response: ASGIApp = failed
        else:
            response = await self._endpoints[binding](Request(scope, receive, send))
        await response(scope, receive, send)


def _endpoint(calls: Calls, binding: Binding) -> Endpoint:
    name = binding.method.name
    method, operation = METHODS[f"/{SERVICE}/{name}"], OPERATIONS[name]

    async def handle(call: HttpCall) -> Response:
        request = await read_request(binding, method, call)
        if isinstance(request, inference_pb2.InferRequest):  # its response may be large, and is made on other threads
            content = await infer_as(request, call, json_of)
        else:
            message = await operation(request, call)
            content = await off_loop(message.ByteSize(), lambda: json_of(message))
        return Response(content, media_type=_JSON)

    handler: Handler = handle
    return calls.endpoint(name, method, handler, status_response)


def _openapi_route() -> Route:
    document = files("patchserve_server.web").joinpath("openapi.json").read_bytes()

    async def show(_: Request) -> Response:
        return Response(document, media_type=_JSON)

    return Route("/openapi.json", show)
