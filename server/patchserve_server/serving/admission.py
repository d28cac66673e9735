"""Admission: a limit on the work in progress, and a share of it for each client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.domain.words import counted
from patchserve_server.serving.fairness import FairQueue, FlowKey
from patchserve_server.serving.log_interval import LogInterval

RETRY_AFTER_S: Final = 0.5
_LOG_INTERVAL_S: Final = 10.0
_MIB: Final = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Capacity:
    """A number of images (or calls, or loads) and their bytes."""

    count: int = 0
    bytes: int = 0

    def __add__(self, other: Capacity) -> Capacity:
        return Capacity(self.count + other.count, self.bytes + other.bytes)

    def __sub__(self, other: Capacity) -> Capacity:
        return Capacity(self.count - other.count, self.bytes - other.bytes)

    def at_least(self, other: Capacity) -> Capacity:
        return Capacity(max(self.count, other.count), max(self.bytes, other.bytes))

    def fits(self, limit: Capacity) -> bool:
        return self.count <= limit.count and self.bytes <= limit.bytes

    def share(self, share: float, at_least: Capacity) -> Capacity:
        """This part of the capacity, but never less than `at_least`."""
        return Capacity(int(self.count * share), int(self.bytes * share)).at_least(at_least)


NOTHING: Final = Capacity()
ONE: Final = Capacity(1)


class Permit:
    """Capacity that a call, a frame of a stream or a batch holds until its release.

    Args:
        admission: where it is counted.
        flow: who holds it.
        capacity: at first.
        make_room: takes capacity from another call if this much more does not fit; returns whether it did.
    """

    def __init__(
        self,
        admission: Admission,
        flow: FlowKey,
        capacity: Capacity = NOTHING,
        make_room: Callable[[Capacity], bool] = lambda _: False,
    ) -> None:
        self.admission = admission
        self.flow = flow
        self.capacity = NOTHING
        self._make_room = make_room
        self._set(capacity)

    def grow(self, minimum: Capacity) -> None:
        """Holds at least `minimum` from now on.

        Raises:
            QueueFullError: it exceeds the limit or the client's share. The permit stays unchanged.
        """
        capacity = self.capacity.at_least(minimum)
        while capacity != self.capacity:
            more = capacity - self.capacity
            try:
                self.admission.check(self.flow.client, more)
            except QueueFullError:
                if not self._make_room(more):
                    raise
            else:
                self._set(capacity)

    def resize(self, nbytes: int) -> None:
        """Holds `nbytes` bytes from now on. Never rejected: they are in memory already, so others have to wait."""
        if self.capacity != NOTHING:
            self._set(Capacity(self.capacity.count, nbytes))

    def release(self) -> None:
        """Returns all capacity. A second call does nothing."""
        self._set(NOTHING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _set(self, capacity: Capacity) -> None:
        change, self.capacity = capacity - self.capacity, capacity
        if change != NOTHING:
            self.admission.add(self.flow, change)


@dataclass(eq=False, slots=True)
class _PendingPermit:
    client: str
    capacity: Capacity
    granted: asyncio.Future[Permit]


class Admission:
    """Decides who gets a permit. A single call that does not fit is rejected at once; a stream waits for its turn.

    Streams hold at most half of the limit, so that single calls are admitted too. While a stream waits, single calls
    hold at most the other half. The streams of one client hold at most half of its share, so that it can make single
    calls as well. No share is less than `largest`, the most that one call may need.

    While others hold something, a client gets with single calls its share of the rest only. So it does not matter how
    many clients want more than they get: with half as the share, n of them hold n/(n + 1) of the limit, and there is
    room for the next client.

    Args:
        unit: what is admitted, in the singular, as in "image limit reached".
        limit: how much of it there may be.
        share: of the limit, for one client.
        largest: what one call may need.
        on_rejection: called for each rejected call; None: nobody listens.
    """

    def __init__(
        self,
        unit: str,
        limit: Capacity,
        *,
        share: float,
        largest: Capacity,
        on_rejection: Callable[[], None] | None = None,
    ) -> None:
        self._unit = unit
        self._on_rejection = on_rejection
        self.limit = limit
        self.client_limit = limit.share(share, largest)
        self._share, self._largest = share, largest
        self._stream_limit = limit.share(0.5, largest)
        self._call_limit = limit - self._stream_limit  # while a stream waits
        self._client_stream_limit = self.client_limit.share(0.5, largest)
        self._held_by_calls = NOTHING
        self._held_by_streams = NOTHING
        self._held_by_client: dict[tuple[str, bool], Capacity] = {}  # key: client, whether by its streams
        self._pending: FairQueue[_PendingPermit] = FairQueue()
        self._rejections = LogInterval(_LOG_INTERVAL_S)

    @property
    def held(self) -> Capacity:
        """All capacity that is held now."""
        return self._held_by_calls + self._held_by_streams

    def permit(self, client: str, make_room: Callable[[Capacity], bool] = lambda _: False) -> Permit:
        """An empty permit for a single call. It may grow."""
        return Permit(self, FlowKey(client), make_room=make_room)

    def acquire(self, client: str, capacity: Capacity) -> Permit:
        """A permit for a single call.

        Raises:
            QueueFullError: it exceeds the limit or the client's share.
        """
        permit = self.permit(client)
        permit.grow(capacity)
        return permit

    def try_acquire_for_stream(self, flow: FlowKey, capacity: Capacity) -> Permit | None:
        """A permit for a frame, or None if the frame would have to wait."""
        pending = self._enqueue(flow, capacity)
        if pending.granted.done():
            return pending.granted.result()
        self._pending.discard(flow, pending)
        return None

    async def acquire_for_stream(self, flow: FlowKey, capacity: Capacity) -> Permit:
        """A permit for a frame, as soon as it is the stream's turn and the capacity fits."""
        pending = self._enqueue(flow, capacity)
        try:
            return await pending.granted
        except asyncio.CancelledError:
            self._pending.discard(flow, pending)
            if pending.granted.done() and not pending.granted.cancelled():  # granted at the moment of cancellation
                pending.granted.result().release()
            raise
        finally:
            self._grant_pending()

    def check(self, client: str, more: Capacity) -> None:
        """Checks that a single call of this client may hold this much more.

        Raises:
            QueueFullError: it exceeds the limit or the client's share.
        """
        held_after = self._held_by(client) + more
        if not held_after.fits(self.client_limit):
            raise self._rejection(f"This client has reached its limit of {self._limit_text(self.client_limit)}")
        held_by_calls = self._held_by_calls + more
        fits = (held_by_calls + self._held_by_streams).fits(self.limit)
        if self._pending and more.count and not held_by_calls.fits(self._call_limit):
            fits = False
        if not fits:
            raise self._rejection(f"The server has reached its limit of {self._limit_text(self.limit)}")
        beside_others = self._limit_beside_others(client)
        if not held_after.fits(beside_others):
            raise self._rejection(f"Beside other clients, this one has {self._limit_text(beside_others)} at most")

    def is_within_share(self, client: str, more: Capacity) -> bool:
        """Whether the client's share allows this much more. If not, others have to give nothing back for it."""
        held_after = self._held_by(client) + more
        return held_after.fits(self.client_limit) and held_after.fits(self._limit_beside_others(client))

    def _limit_beside_others(self, client: str) -> Capacity:
        left_by_others = self.limit - (self.held - self._held_by(client))
        return left_by_others.share(self._share, self._largest)

    def add(self, flow: FlowKey, change: Capacity) -> None:
        """Counts the change of a permit: positive when it acquires capacity, negative when it releases some."""
        if flow.is_stream:
            self._held_by_streams += change
        else:
            self._held_by_calls += change
        key = (flow.client, flow.is_stream)
        self._held_by_client[key] = self._held(flow.client, streams=flow.is_stream) + change
        if self._held_by_client[key] == NOTHING:
            del self._held_by_client[key]
        if change.fits(NOTHING):
            self._grant_pending()

    def _rejection(self, reason: str) -> QueueFullError:
        if (due := self._rejections.count()) is not None:
            count, since_s = due
            if count == 1:
                _log.warning("Rejected 1 call: %s limit reached", self._unit)
            else:
                _log.warning("Rejected %d calls in %.0f s: %s limit reached", count, since_s, self._unit)
        if self._on_rejection is not None:
            self._on_rejection()
        return QueueFullError(f"{reason}. Try again shortly, or send less at once.", RETRY_AFTER_S)

    def _enqueue(self, flow: FlowKey, capacity: Capacity) -> _PendingPermit:
        pending = _PendingPermit(flow.client, capacity, asyncio.get_running_loop().create_future())
        self._pending.push(flow, pending)
        self._grant_pending()
        return pending

    def _grant_pending(self) -> None:
        # A client that has used up its share is skipped. For any other client the queue waits: otherwise small frames
        # could delay a large one forever.
        while (head := self._pending.head(self._within_share)) is not None:
            flow, pending = head
            held_by_streams = self._held_by_streams + pending.capacity
            if not held_by_streams.fits(self._stream_limit):
                return
            if not (held_by_streams + self._held_by_calls).fits(self.limit):
                return
            self._pending.pop(flow)
            if not pending.granted.done():
                pending.granted.set_result(Permit(self, flow, pending.capacity))

    def _within_share(self, pending: _PendingPermit) -> bool:
        held_by_streams = self._held(pending.client, streams=True)
        held_after = held_by_streams + pending.capacity
        # A batch of the Open Inference Protocol that needs more than half of the share is admitted alone.
        if held_by_streams != NOTHING and not held_after.fits(self._client_stream_limit):
            return False
        return (held_after + self._held(pending.client, streams=False)).fits(self.client_limit)

    def _held_by(self, client: str) -> Capacity:
        return self._held(client, streams=False) + self._held(client, streams=True)

    def _held(self, client: str, *, streams: bool) -> Capacity:
        return self._held_by_client.get((client, streams), NOTHING)

    def _limit_text(self, limit: Capacity) -> str:
        size = f" and {limit.bytes / _MIB:.0f} MiB in total" if limit.bytes else ""
        return f"{counted(limit.count, self._unit)}{size}"
