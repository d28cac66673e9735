"""The messages of InferStream over a WebSocket.

From the caller: an image is a binary message. A text message before it may name it, in JSON: `frame_id` and
`capture_time` of a Frame. `{"end": true}` says that no more come. To the caller: InferStreamResponse in JSON, and at
the end the status of the stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Self

from google.rpc import status_pb2

from patchserve.v1 import stream_pb2
from patchserve_server.contract import requests
from patchserve_server.domain.errors import InvalidInputError, StreamProtocolError
from patchserve_server.domain.stream import Frame
from patchserve_server.web.message_json import json_of
from patchserve_server.web.transcoding.json_text import parse_json
from patchserve_server.web.transcoding.json_values import fill_message

_MAX_TEXT: Final = 2048  # characters
_MAX_ELEMENTS: Final = 16
_MAX_REASON: Final = 400  # characters
_END: Final = {"end": True}

Receive = Callable[[], Awaitable[bytes | str | None]]


class ReceivedFrames:
    """The frames that come, in their order. Not a generator: it would keep each frame until the next one comes.

    Args:
        receive: the caller's next message; None after it has closed.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        name = stream_pb2.Frame()
        message = await self._receive()
        if isinstance(message, str):
            if (named := _name(message)) is None:
                raise StopAsyncIteration
            name, message = named, await self._receive()
        if message is None:  # nobody reads results any more: the server ends the call
            raise StopAsyncIteration
        if isinstance(message, str):
            raise StreamProtocolError(
                "After the text message of a frame comes its image, in a binary message.", "frame"
            )
        return replace(requests.frame(name), image=message)


def _name(text: str) -> stream_pb2.Frame | None:
    """The frame without its image that a text describes; None: it says that there are no more."""
    if len(text) > _MAX_TEXT:
        raise _not_a_name(f"It has {len(text):,} characters; at most {_MAX_TEXT:,} are read.")
    frame = stream_pb2.Frame()
    try:
        value = parse_json(text.encode(errors="replace"), _MAX_ELEMENTS)
        if value == _END:
            return None
        fill_message(frame, value, {})
    except InvalidInputError as error:
        raise _not_a_name(error.message) from None
    if "image" in value:
        raise _not_a_name("The image itself is not JSON.")
    return frame


def _not_a_name(reason: str) -> StreamProtocolError:
    rule = 'A text message is {"frame_id": "..."} before an image, or {"end": true}.'
    return StreamProtocolError(f"{rule} {reason[:_MAX_REASON]}", "frame")


def status_text(status: status_pb2.Status) -> str:
    """The last message of a stream: code 0 if all was answered, else why it ended."""
    return f'{{"status": {json_of(status).decode()}}}'
