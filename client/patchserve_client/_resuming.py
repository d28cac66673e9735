"""A stream that goes on over several connections: when to connect again, and what to send again."""

from __future__ import annotations

import bisect
import dataclasses
import random
import threading
import time

from patchserve.v1.stream_pb2 import InferStreamRequest
from patchserve_client._errors import PatchserveError, Unavailable
from patchserve_client._types import FrameResult

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 2.0
# What gRPC makes of a stream that a proxy resets because it lost the server. The server's own errors have a reason.
_RESET_CODES = ("INTERNAL", "UNKNOWN")


class Patience:
    """When to connect again, and when to give up. 0 s: at once."""

    def __init__(self, resume_for_s: float) -> None:
        if not resume_for_s >= 0:
            raise ValueError(f"resume_for_s is 0 or a number of seconds, not {resume_for_s}.")
        self.resumes = resume_for_s > 0
        self._resume_for_s = resume_for_s
        self.progress()

    def progress(self) -> None:
        """The stream got further since it was lost."""
        self._lost_at_s: float | None = None
        self._delay_s = _FIRST_DELAY_S

    def delay_s(self, error: PatchserveError) -> float:
        """How long to wait before the next connection.

        Raises:
            PatchserveError: the error itself, where another connection would not help or patience is at its end.
        """
        now_s = time.monotonic()
        # An expired token is asked for once more: whoever gives it may have a new one.
        expired = error.reason == "CREDENTIALS_EXPIRED" and self._lost_at_s is None
        self._lost_at_s = now_s if self._lost_at_s is None else self._lost_at_s
        left_s = self._lost_at_s + self._resume_for_s - now_s
        if left_s <= 0 or not (_is_loss(error) or expired):
            raise error
        delay_s = max(self._delay_s, error.retry_after_s or 0)
        self._delay_s = min(2 * self._delay_s, _LONGEST_DELAY_S)
        # Not all streams of a lost server at the same moment.
        return min(left_s, delay_s * random.uniform(0.75, 1.25))  # noqa: S311 - nothing to guess


def _is_loss(error: PatchserveError) -> bool:
    reset = error.code in _RESET_CODES and not error.reason
    return reset or isinstance(error, Unavailable) or error.retry_after_s is not None


class Unanswered:
    """The frames of one stream that have no result yet. Numbers count frames over all connections.

    Frames are kept in memory only where they may have to be sent again.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._connection = 0
        self._numbered = 0
        self._again: list[tuple[int, InferStreamRequest]] = []  # in their order
        self._sent: dict[int, tuple[int, InferStreamRequest]] = {}  # by the sequence on this connection
        self._sequence = 0

    def __bool__(self) -> bool:
        return bool(self._sent or self._again)

    def connect(self) -> int:
        """Begins a connection, whose number it returns: what the last one left unanswered is sent again."""
        with self._lock:
            self._again = sorted([*self._sent.values(), *self._again], key=lambda one: one[0])
            self._sent = {}
            self._sequence = 0
            self._connection += 1
            return self._connection

    def is_current(self, connection: int) -> bool:
        return connection == self._connection

    def again(self, connection: int) -> InferStreamRequest | None:
        """The next frame to be sent again, if any is left."""
        with self._lock:
            if connection != self._connection or not self._again:
                return None
            return self._mark_sent(*self._again.pop(0))

    def new(self, connection: int, request: InferStreamRequest) -> InferStreamRequest | None:
        """The same frame, or None where its connection is gone: then the next one sends it."""
        with self._lock:
            number, self._numbered = self._numbered, self._numbered + 1
            if connection != self._connection:
                bisect.insort(self._again, (number, request), key=lambda one: one[0])
                return None
            return self._mark_sent(number, request)

    def _mark_sent(self, number: int, request: InferStreamRequest) -> InferStreamRequest:
        if self._keep:
            self._sent[self._sequence] = (number, request)
        self._sequence += 1
        return request

    def answered(self, result: FrameResult) -> FrameResult:
        """The same result, with the frame's number in the whole stream."""
        with self._lock:
            number, _ = self._sent.pop(result.sequence, (result.sequence, None))
        return result if number == result.sequence else dataclasses.replace(result, sequence=number)
