"""One bound on what is under way: so many places, so many bytes, and a share of them for each client."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from typing import Self

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.serving.fairness import FairQueue, FlowKey

RETRY_AFTER_S = 0.5
_TELL_EVERY_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Places and bytes: a bound, or what is taken of it."""

    places: int = 0
    bytes: int = 0

    def __add__(self, other: Capacity) -> Capacity:
        return Capacity(self.places + other.places, self.bytes + other.bytes)

    def __sub__(self, other: Capacity) -> Capacity:
        return Capacity(self.places - other.places, self.bytes - other.bytes)

    def fits(self, bound: Capacity) -> bool:
        return self.places <= bound.places and self.bytes <= bound.bytes

    def share(self, share: float, at_least: Capacity) -> Capacity:
        """A part of it, never less than what a single call may need."""
        places, size = int(self.places * share), int(self.bytes * share)
        return Capacity(max(places, at_least.places), max(size, at_least.bytes))


NOTHING = Capacity()


class Permit:
    """Capacity that is taken until it is released, once; a context manager does that by itself."""

    def __init__(self, admission: Admission, client: str, room: Capacity, *, streamed: bool) -> None:
        self._admission = admission
        self._client = client
        self._streamed = streamed
        self.room = NOTHING
        self._change(room)

    def resize(self, size: int) -> None:
        """From now on it holds so many bytes. Never refused: what is there is there, and others wait for it."""
        if self.room != NOTHING:
            self._change(Capacity(self.room.places, size))

    def release(self) -> None:
        self._change(NOTHING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _change(self, room: Capacity) -> None:
        change, self.room = room - self.room, room
        self._admission.changed(self._client, change, streamed=self._streamed)


@dataclass(eq=False, slots=True)
class _Waiting:
    client: str
    room: Capacity
    granted: asyncio.Future[Permit]


class Admission:
    """A single call that does not fit is refused at once; a stream waits, and streams and clients take turns.

    Streams take at most half, so that single calls get in; while a stream waits, single calls take at most the other
    half. Of a client's share its streams take at most half too, or its cameras would keep out its own single calls.
    `largest` is what one call may need: no share is less than that.
    """

    def __init__(self, what: str, bound: Capacity, *, share: float, largest: Capacity) -> None:
        self._what = what
        self.bound = bound
        self._for_streams = bound.share(0.5, largest)
        self._for_calls = bound - self._for_streams
        self.per_client = bound.share(share, largest)
        self._calls = NOTHING
        self._streams = NOTHING
        self._client_streams = self.per_client.share(0.5, largest)
        self._held: dict[tuple[str, bool], Capacity] = {}  # by client, and whether by its streams
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._refused = 0
        self._told_s = -math.inf

    def take(self, client: str, room: Capacity) -> Permit:
        """Capacity for a single call.

        Raises:
            QueueFullError: it does not fit, or would be more than the client's share.
        """
        own = self._of(client, streamed=False) + self._of(client, streamed=True)
        if not (own + room).fits(self.per_client):
            message = (
                f"You have as many {self._what} under way as one client may, {self._words(self.per_client)}; try "
                "again shortly, or send less at once."
            )
            raise self._refusal(message)
        calls = self._calls + room
        fits = (calls + self._streams).fits(self.bound)
        if self._waiting and room.places and not calls.fits(self._for_calls):
            fits = False
        if not fits:
            message = (
                f"As many {self._what} are under way as the server takes, {self._words(self.bound)}; try again "
                "shortly, or send less at once."
            )
            raise self._refusal(message)
        return Permit(self, client, room, streamed=False)

    def _refusal(self, message: str) -> QueueFullError:
        self._refused += 1
        now_s = time.monotonic()
        if now_s >= self._told_s + _TELL_EVERY_S:
            _log.warning("Calls refused for want of room, %s, since the last such line: %d", self._what, self._refused)
            self._refused, self._told_s = 0, now_s
        return QueueFullError(message, RETRY_AFTER_S)

    def take_for_stream(self, flow: FlowKey, room: Capacity) -> Permit | None:
        """Capacity for a frame, or None where it would have to wait."""
        waiting = self._wait(flow, room)
        if waiting.granted.done():
            return waiting.granted.result()
        self._waiting.discard(flow, waiting)
        return None

    async def wait(self, flow: FlowKey, room: Capacity) -> Permit:
        """Capacity for a frame, as soon as it is the stream's turn and it fits."""
        waiting = self._wait(flow, room)
        try:
            return await waiting.granted
        except asyncio.CancelledError:
            self._waiting.discard(flow, waiting)
            if waiting.granted.done() and not waiting.granted.cancelled():  # granted in the same moment
                waiting.granted.result().release()
            raise
        finally:
            self._grant()

    def changed(self, client: str, change: Capacity, *, streamed: bool) -> None:
        """Takes note of what a Permit takes or gives back."""
        if streamed:
            self._streams += change
        else:
            self._calls += change
        self._held[client, streamed] = self._of(client, streamed=streamed) + change
        if self._held[client, streamed] == NOTHING:
            del self._held[client, streamed]
        if not change.fits(NOTHING):
            return
        self._grant()

    def _wait(self, flow: FlowKey, room: Capacity) -> _Waiting:
        waiting = _Waiting(flow.client, room, asyncio.get_running_loop().create_future())
        self._waiting.push(flow, waiting)
        self._grant()
        return waiting

    def _grant(self) -> None:
        # Who has its share is passed over; who only finds no room is waited for, or small frames would keep out large.
        while (found := self._waiting.head(self._within_share)) is not None:
            flow, waiting = found
            streams = self._streams + waiting.room
            if not (streams.fits(self._for_streams) and (streams + self._calls).fits(self.bound)):
                return
            self._waiting.pop(flow)
            if not waiting.granted.done():
                waiting.granted.set_result(Permit(self, waiting.client, waiting.room, streamed=True))

    def _within_share(self, waiting: _Waiting) -> bool:
        held = self._of(waiting.client, streamed=True)
        streams = held + waiting.room
        # What is more than half by itself, a batch of the Open Inference Protocol, comes in alone.
        if held != NOTHING and not streams.fits(self._client_streams):
            return False
        return (streams + self._of(waiting.client, streamed=False)).fits(self.per_client)

    def _of(self, client: str, *, streamed: bool) -> Capacity:
        return self._held.get((client, streamed), NOTHING)

    def _words(self, bound: Capacity) -> str:
        return f"{bound.places} of {bound.bytes / 2**20:.0f} MiB together" if bound.bytes else f"{bound.places}"
