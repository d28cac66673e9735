"""The decisions of a stream of frames, without I/O: what to send, what a message means, when to reconnect.

A stream may use several connections. Frames without a result are sent again on the next one.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client import _results
from patchserve_client._backoff import Backoff
from patchserve_client._choices import NoticeKind
from patchserve_client._counted import counted
from patchserve_client._errors import PatchserveError
from patchserve_client._own_changes import OwnChanges
from patchserve_client._reference_header import reference_of
from patchserve_client._types import FrameResult, StreamNotice


class StreamState:
    """The state of one stream. Safe to share between the sending and the receiving thread.

    A driver connects while `connect_after_s` is not None. For each connection it sends `requests`, reads a frame if
    `needs_frame`, and passes every message to `receive`, or the error that ends the connection to `lose`.

    `connect_after_s` is how many seconds to wait before the next connection; None: the stream has ended.
    """

    def __init__(self, config: InferStreamRequest, backoff: Backoff, own: OwnChanges) -> None:
        self.connect_after_s: float | None = 0.0
        self.is_connected = False
        self.reference_id = reference_of(config.config)
        self._config = config
        self._backoff = backoff
        self._own = own
        # The revision to ask for first; empty after the first connection is open, or if the caller names one.
        self._pinned_revision = "" if config.config.expected_revision else own.revision_of(self.reference_id)
        self._lock = threading.Lock()
        self._connection = 0
        self._config_is_sent = False
        self._frame_count = 0
        self._frames_ended = False
        self._frames_error: Exception | None = None
        self._unsent: deque[tuple[int, InferStreamRequest]] = deque()  # (place in the stream, frame), in order
        # Frames that may have to be sent again, in order, by their sequence on this connection.
        self._unanswered: dict[int, tuple[int, InferStreamRequest]] = {}
        self._sequence = 0
        # On this connection:
        self._answered = 0  # results and `ready`
        self._silent_since_s: float | None = None  # None: the server has nothing to answer
        self._is_reading = False
        self._lost_at_s: float | None = None  # when the connection was lost that has not been resumed

    # Sending. `connection` is the number from `connect`; earlier connections have nothing to send.

    def connect(self) -> int:
        """Start a connection and return its number."""
        with self._lock:
            self._unsent.extendleft(reversed(self._unanswered.values()))
            self._unanswered.clear()
            self._sequence = self._answered = 0
            self._silent_since_s = None
            self._config_is_sent = False
            self._connection += 1
            self.is_connected = True
            return self._connection

    def is_sending(self, connection: int) -> bool:
        """Whether this connection has more to send, now or later."""
        with self._lock:
            has_more = not self._config_is_sent or bool(self._unsent) or not self._frames_ended
            return connection == self._connection and has_more

    def requests(self, connection: int) -> Iterator[InferStreamRequest]:
        """What this connection can send without a new frame: the config, then the frames without a result."""
        while (request := self._next_request(connection)) is not None:
            yield request

    def _next_request(self, connection: int) -> InferStreamRequest | None:
        with self._lock:
            if connection != self._connection:
                return None
            if self._config_is_sent and not self._unsent:
                return None
            self._silent_since_s = self._silent_since_s or time.monotonic()
            if not self._config_is_sent:
                self._config_is_sent = True
                return self._pinned_config() if self._pinned_revision else self._config
            place, request = self._unsent.popleft()
            if self._backoff.reconnects or self._pinned_revision:  # otherwise no frame is sent again
                self._unanswered[self._sequence] = (place, request)
            self._sequence += 1
            return request

    def _pinned_config(self) -> InferStreamRequest:
        config = InferStreamRequest()
        config.CopyFrom(self._config)
        config.config.expected_revision = self._pinned_revision
        return config

    def needs_frame(self, connection: int) -> bool:
        """Whether this connection has nothing to send until a frame is added."""
        return self.is_sending(connection) and not self._unsent

    def add_frame(self, request: InferStreamRequest) -> None:
        """Queue a new frame for the connection that is open now, or for the next one."""
        with self._lock:
            self._unsent.append((self._frame_count, request))
            self._frame_count += 1

    def end_frames(self, error: Exception | None = None) -> None:
        """No more frames follow. `error` of the caller's frames is raised after the results of earlier frames."""
        with self._lock:
            self._frames_ended, self._frames_error = True, error

    # Receiving.

    def receive(self, message: InferStreamResponse | None) -> FrameResult | StreamNotice | None:
        """The result or notice in a message, if any. None: the server has ended the stream.

        Raises:
            Exception: the stream has ended; this is the exception of the caller's frames.
        """
        if message is None:
            self._end()
            return None
        event = _results.stream_event(message)
        self._end_silence(is_answer=not isinstance(event, StreamNotice))
        if isinstance(event, FrameResult):
            self._backoff.reset()
            return self._placed_in_stream(event)
        if event is not None:
            return event
        self._unpin()
        if not self._has_frames_without_result():
            self._backoff.reset()  # `ready`, and no frame must be sent again
        return self._resumed()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A block that waits for a message. Time in which the caller does something else is no silence."""
        with self._lock:
            self._is_reading = True
            if self._silent_since_s is not None:
                self._silent_since_s = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._is_reading = False

    def silent_for_s(self) -> float:
        """How long a message has been waited for that the server has to send; 0 if it has none to send."""
        with self._lock:
            if self._silent_since_s is None or not self._is_reading:
                return 0.0
            return time.monotonic() - self._silent_since_s

    def _end_silence(self, *, is_answer: bool) -> None:
        with self._lock:
            self._answered += is_answer
            has_answered_all = self._answered >= self._sequence + 1  # `ready`, and a result for each frame
            self._silent_since_s = None if has_answered_all else time.monotonic()

    def lose(self, error: PatchserveError) -> StreamNotice | None:
        """The connection ended with an error: plan the next connection. Returns a notice, once for each loss.

        Raises:
            PatchserveError: `error`, if another connection would not help.
            Exception: the stream has ended; this is the exception of the caller's frames.
        """
        if self._pinned_revision and error.reason == "REVISION_MISMATCH":  # somebody else has changed it since
            self._own.forget(self.reference_id)
            with self._lock:
                self._pinned_revision = ""
                self._connection += 1  # the old one sends nothing more: its frames would not be kept
            self.is_connected, self.connect_after_s = False, 0.0
            return None
        if self._backoff.reconnects and self._frames_ended and not self._has_frames_without_result():
            self._end()
            return None
        self.is_connected = False
        self.connect_after_s = self._backoff.delay_s(error)
        if self.connect_after_s is None:
            raise self._frames_error or error
        if self._lost_at_s is not None:
            return None
        self._lost_at_s = time.monotonic()
        return StreamNotice(NoticeKind.RECONNECTING, f"The stream lost its server, reconnecting: {error.message}")

    def _unpin(self) -> None:
        """The connection is open. The next one takes the revision that the reference then has."""
        with self._lock:
            self._pinned_revision = ""
            if not self._backoff.reconnects:
                self._unanswered.clear()

    def _resumed(self) -> StreamNotice | None:
        if self._lost_at_s is None:
            return None
        lost_for_s, self._lost_at_s = time.monotonic() - self._lost_at_s, None
        with self._lock:
            count = len(self._unsent) + len(self._unanswered)
        again = f"; {counted(count, 'frame')} without a result will be sent again" if count else ""
        return StreamNotice(NoticeKind.RESUMED, f"Resumed after {lost_for_s:.1f} s{again}.")

    def _end(self) -> None:
        self.is_connected = False
        self.connect_after_s = None
        if self._frames_error is not None:
            raise self._frames_error

    def _has_frames_without_result(self) -> bool:
        with self._lock:
            return bool(self._unsent or self._unanswered)

    def _placed_in_stream(self, result: FrameResult) -> FrameResult:
        """The same result with the frame's place in the whole stream; the server counts frames of one connection."""
        with self._lock:
            place, _ = self._unanswered.pop(result.sequence, (result.sequence, None))
        return result if place == result.sequence else dataclasses.replace(result, sequence=place)
