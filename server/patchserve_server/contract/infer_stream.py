"""The method InferStream: each message becomes a frame, each event of the stream a message."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Self, TypeVar

from patchserve.v1 import stream_pb2
from patchserve_server.contract import requests, serialized
from patchserve_server.contract.calls import AdmittedCall
from patchserve_server.contract.response_size import check_response_size
from patchserve_server.domain.errors import ResponseTooLargeError, StreamProtocolError
from patchserve_server.domain.stream import Frame, FrameOutcome, StreamEvent

R = TypeVar("R", stream_pb2.InferStreamResponse, bytes)


async def infer_stream(
    messages: AsyncIterator[stream_pb2.InferStreamRequest], call: AdmittedCall
) -> AsyncIterator[bytes]:
    """The responses to a caller's messages, serialized. Close it to stop all work.

    Raises:
        StreamProtocolError: a message is not the one that comes at this place.
        The errors of Streams.run.
    """
    first_message = await anext(aiter(messages), None)
    if first_message is None or first_message.WhichOneof("payload") != "config":
        raise StreamProtocolError("The first message of InferStream must be `config`.")
    frames = _Frames(messages)
    async with aclosing(responses_to(first_message.config, frames, call, serialized.stream_event)) as all_responses:
        async for response in all_responses:
            yield response


async def responses_to(
    config: stream_pb2.StreamConfig,
    frames: AsyncIterator[Frame],
    call: AdmittedCall,
    write: Callable[[StreamEvent, str], R],
) -> AsyncGenerator[R]:
    """The responses to the frames of a stream with this config. Close it to stop all work.

    Args:
        config: of the stream.
        frames: of the caller.
        call: of the caller.
        write: the response of an event, for a call with this id.

    Raises:
        The errors of Streams.run.
    """
    checked = requests.stream_config(config, call.application.limits)
    async with aclosing(call.application.streams.run(call.client, checked, frames)) as events:
        async for event in events:
            yield _response(event, call, write)


def _response(event: StreamEvent, call: AdmittedCall, write: Callable[[StreamEvent, str], R]) -> R:
    """The response of an event. A result that is too large becomes an error of its frame; the stream continues."""
    if isinstance(event, FrameOutcome) and isinstance(event.result, ResponseTooLargeError):
        event = replace(event, result=event.result.with_prefix("config"))
    response = write(event, call.request_id)
    if isinstance(event, FrameOutcome):
        try:
            check_response_size(response, call.application.limits.max_message_bytes, "config.output")
        except ResponseTooLargeError as error:
            return write(replace(event, result=error), call.request_id)
    return response


class _Frames:
    """The frames of a stream. Not a generator: it would keep each frame until the next one comes."""

    def __init__(self, messages: AsyncIterator[stream_pb2.InferStreamRequest]) -> None:
        self._messages = messages

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        message = await anext(self._messages)
        if message.WhichOneof("payload") != "frame":
            raise StreamProtocolError("Every message after the first of InferStream must be a `frame`.")
        return requests.frame(message.frame)
