"""Runs a stream for synchronous code. gRPC reads the requests in its own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client._errors import PatchserveError
from patchserve_client._stream_state import StreamState
from patchserve_client._types import Frame, FrameResult, ImageSource, StreamNotice

MakeRequest = Callable[["Frame | ImageSource"], InferStreamRequest]
Connect = Callable[[Iterator[InferStreamRequest]], Generator[InferStreamResponse]]


def stream(
    state: StreamState,
    frames: Iterable[Frame | ImageSource],
    make_request: MakeRequest,
    connect: Connect,
    on_notice: Callable[[StreamNotice], None] | None,
) -> Generator[FrameResult]:
    """Yield one result for each frame. `connect` starts a call; closing its generator ends the call.

    `make_request` may block; gRPC's thread calls it for one frame after the other.

    Raises:
        PatchserveError: the stream ended early.
        Exception: the exception of `frames`, after the results of the frames before it.
    """
    sender = _Sender(state, map(make_request, frames))
    while (delay_s := state.connect_after_s) is not None:
        time.sleep(delay_s)
        with closing(connect(sender.connect())) as messages:
            while state.is_connected:
                event = _read(state, messages)
                if isinstance(event, FrameResult):
                    yield event
                elif event is not None and on_notice is not None:
                    on_notice(event)


def _read(state: StreamState, messages: Iterator[InferStreamResponse]) -> FrameResult | StreamNotice | None:
    try:
        with state.reading():
            message = next(messages, None)
    except PatchserveError as error:
        return state.lose(error)
    return state.receive(message)


class _Sender:
    """Reads frames and creates the requests of each connection."""

    def __init__(self, state: StreamState, frames: Iterator[InferStreamRequest]) -> None:
        self._state = state
        self._frames = frames
        self._drawing = threading.Lock()

    def connect(self) -> Iterator[InferStreamRequest]:
        """Start a connection; returns its requests."""
        return self._requests(self._state.connect())

    def _requests(self, connection: int) -> Iterator[InferStreamRequest]:
        while self._state.is_sending(connection):
            yield from self._state.requests(connection)
            with self._drawing:  # the thread of an earlier connection may still wait for a frame
                if self._state.needs_frame(connection):
                    self._read_frame()

    def _read_frame(self) -> None:
        try:
            self._state.add_frame(next(self._frames))
        except StopIteration:
            self._state.end_frames()
        except Exception as error:  # noqa: BLE001 - raised in the caller's thread; gRPC would log it and hide it
            self._state.end_frames(error)
