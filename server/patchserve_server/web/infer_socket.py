"""InferStream over a WebSocket: the frames are binary messages, the results JSON, the flow control that of gRPC."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Final

from starlette.routing import BaseRoute, WebSocketRoute

from patchserve.v1 import stream_pb2
from patchserve_server.contract.infer_stream import responses_to
from patchserve_server.contract.methods import METHODS, SERVICE
from patchserve_server.web.calls import Calls, SocketCall
from patchserve_server.web.frame_messages import ReceivedFrames, status_text
from patchserve_server.web.message_json import json_of
from patchserve_server.web.transcoding.json_values import fill_message
from patchserve_server.web.transcoding.requests import fields_of_query, off_loop

PATH: Final = "/v1/references/{reference_id}:inferStream"
_MAX_QUERY_ELEMENTS: Final = 128
_METHOD: Final = METHODS[f"/{SERVICE}/InferStream"]


def routes(calls: Calls) -> list[BaseRoute]:
    return [WebSocketRoute(PATH, calls.websocket("InferStream", _METHOD, _infer_stream, status_text))]


async def _infer_stream(call: SocketCall) -> None:
    config = stream_pb2.StreamConfig()
    values = fields_of_query(call.socket.query, config.DESCRIPTOR, _MAX_QUERY_ELEMENTS)
    fill_message(config, values, call.socket.path_params)
    frames = ReceivedFrames(partial(call.socket.receive, call.holdings))
    async with aclosing(responses_to(config, frames, call)) as responses:
        async for response in responses:
            text = await off_loop(response.ByteSize(), partial(json_of, response))
            await call.socket.send(text.decode())
