"""A stream of frames, over as many connections as it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client import _convert
from patchserve_client._errors import PatchserveError
from patchserve_client._resuming import Patience, Unanswered
from patchserve_client._sending import Outbox
from patchserve_client._types import Frame, FrameResult, ImageSource, StreamNotice

Connect = Callable[[Iterator[InferStreamRequest]], Generator[InferStreamResponse]]


def stream(
    config: InferStreamRequest,
    frames: Iterable[Frame | ImageSource],
    connect: Connect,
    on_notice: Callable[[StreamNotice], None] | None,
    patience: Patience,
) -> Generator[FrameResult]:
    """One result for each frame. `connect` begins a call; closing what it returns ends the call.

    Raises:
        PatchserveError: what `connect` raises, where patience does not help.
        Whatever `frames` raises, after the results of the frames before it.
    """
    outbox = Outbox(map(_convert.frame_request, frames))
    sending = _Sending(config, iter(outbox), keep=patience.resumes)
    with outbox.error_first():
        messages = connect(sending.messages())
        try:
            while True:
                try:
                    message = next(messages, None)
                except PatchserveError as error:
                    if patience.resumes and sending.is_complete:
                        return
                    time.sleep(patience.delay_s(error))
                    messages = connect(sending.messages())
                    continue
                if message is None:
                    return
                event = _convert.stream_event(message)
                if isinstance(event, FrameResult):
                    patience.progress()
                    yield sending.unanswered.answered(event)
                elif event is not None and on_notice is not None:
                    on_notice(event)
                elif not sending.unanswered:
                    patience.progress()
        finally:
            messages.close()


class _Sending:
    """What each connection sends, drawn from one iterator by whichever thread gRPC has for it."""

    def __init__(self, config: InferStreamRequest, frames: Iterator[InferStreamRequest], *, keep: bool) -> None:
        self.unanswered = Unanswered(keep=keep)
        self._config = config
        self._frames = frames
        self._drawing = threading.Lock()
        self._exhausted = False

    @property
    def is_complete(self) -> bool:
        """Whether every frame has its result."""
        return self._exhausted and not self.unanswered

    def messages(self) -> Generator[InferStreamRequest]:
        """Those of a new connection."""
        return self._messages(self.unanswered.connect())

    def _messages(self, connection: int) -> Generator[InferStreamRequest]:
        yield self._config
        while (request := self.unanswered.again(connection) or self._draw(connection)) is not None:
            yield request

    def _draw(self, connection: int) -> InferStreamRequest | None:
        with self._drawing:  # the last connection's thread may still wait for a frame, and leaves it to this one
            if (left := self.unanswered.again(connection)) is not None:
                return left
            if self._exhausted or not self.unanswered.is_current(connection):
                return None
            if (frame := next(self._frames, None)) is None:
                self._exhausted = True
                return None
            return self.unanswered.new(connection, frame)
