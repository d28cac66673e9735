"""InferStream over a WebSocket: the frames are binary messages, the results JSON, the flow control that of gRPC."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from patchserve.v1 import stream_pb2
from patchserve_server.contract import responses
from patchserve_server.contract.infer_stream import responses_to
from patchserve_server.contract.methods import METHODS, SERVICE
from patchserve_server.contract.status import status_of
from patchserve_server.domain.http_errors import UnknownPathError, UpgradeRequiredError
from patchserve_server.web.calls import Calls, SocketCall
from patchserve_server.web.errors import status_response
from patchserve_server.web.frame_messages import ReceivedFrames, status_text
from patchserve_server.web.message_json import json_of
from patchserve_server.web.transcoding.json_values import fill_message
from patchserve_server.web.transcoding.requests import fields_of_query, off_loop

# A path in place of one segment, so that an id with a slash gets an error that says what is wrong.
_PATH: Final = "/v1/references/{reference_id:path}:inferStream"
_MAX_QUERY_ELEMENTS: Final = 128
_METHOD: Final = METHODS[f"/{SERVICE}/InferStream"]


def routes(calls: Calls) -> list[BaseRoute]:
    return [
        WebSocketRoute(_PATH, calls.websocket("InferStream", _METHOD, _infer_stream, status_text)),
        WebSocketRoute("/{path:path}", _no_stream),
        Route(_PATH, _no_upgrade),
    ]


async def _no_stream(websocket: WebSocket) -> None:
    await websocket.send_denial_response(status_response(status_of(UnknownPathError(websocket.url.path), "")))


async def _no_upgrade(_: Request) -> Response:
    response = status_response(status_of(UpgradeRequiredError(), ""))
    response.headers.update({"upgrade": "websocket", "connection": "upgrade"})
    return response


async def _infer_stream(call: SocketCall) -> None:
    config = stream_pb2.StreamConfig()
    values = fields_of_query(call.socket.query, config.DESCRIPTOR, _MAX_QUERY_ELEMENTS)
    fill_message(config, values, call.socket.path_params)
    frames = ReceivedFrames(partial(call.socket.receive, call.holdings))
    async with aclosing(responses_to(config, frames, call, responses.stream_event)) as all_responses:
        async for response in all_responses:
            text = await off_loop(response.ByteSize(), partial(json_of, response))
            await call.socket.send(text.decode())
