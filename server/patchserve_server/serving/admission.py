"""Admission: a limit on the work in progress, and a share of it for each client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass
from typing import Final, Self

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.domain.words import counted
from patchserve_server.serving.capacity import NOTHING, ONE, Capacity
from patchserve_server.serving.fairness import FairQueue, FlowKey
from patchserve_server.serving.ledger import Ledger, LocalLedger, WaitingProcess
from patchserve_server.serving.log_interval import LogInterval

__all__ = ["NOTHING", "ONE", "RETRY_AFTER_S", "Admission", "Capacity", "Permit"]

RETRY_AFTER_S: Final = 0.5
_LOG_INTERVAL_S: Final = 10.0
_MIB: Final = 2**20

_log = logging.getLogger(__name__)


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
                with self.admission.exclusive():
                    self.admission.check(self.flow.client, more)
                    self._set(capacity)
            except QueueFullError:
                if not self._make_room(more):
                    raise

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
        ledger: what is held, and who waits; None: only this process has a part in it.
    """

    def __init__(
        self,
        unit: str,
        limit: Capacity,
        *,
        share: float,
        largest: Capacity,
        on_rejection: Callable[[], None] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._unit = unit
        self._on_rejection = on_rejection
        self._share, self._largest = share, largest
        self._ledger = ledger or LocalLedger()
        self._set_limit(limit)
        self._pending: FairQueue[_PendingPermit] = FairQueue()  # of this process
        self._rejections = LogInterval(_LOG_INTERVAL_S)

    def _set_limit(self, limit: Capacity) -> None:
        self.limit = limit
        self.client_limit = limit.share(self._share, self._largest)
        self._stream_limit = limit.share(0.5, self._largest)
        self._call_limit = limit - self._stream_limit  # while a stream waits
        self._client_stream_limit = self.client_limit.share(0.5, self._largest)

    def change_limit(self, limit: Capacity) -> None:
        """Has another limit from now on. What is held stays, also above it."""
        self._set_limit(limit)
        self.grant_pending()

    @property
    def held(self) -> Capacity:
        """All capacity that is held now."""
        return self._ledger.held(streams=False) + self._ledger.held(streams=True)

    def exclusive(self) -> AbstractContextManager[None]:
        """Nothing else changes what is held until the block ends."""
        return self._ledger.exclusive()

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
        self._discard(flow, pending)
        return None

    async def acquire_for_stream(self, flow: FlowKey, capacity: Capacity) -> Permit:
        """A permit for a frame, as soon as it is the stream's turn and the capacity fits."""
        pending = self._enqueue(flow, capacity)
        try:
            return await pending.granted
        except asyncio.CancelledError:
            self._discard(flow, pending)
            if pending.granted.done() and not pending.granted.cancelled():  # granted at the moment of cancellation
                pending.granted.result().release()
            raise
        finally:
            self.grant_pending()

    def check(self, client: str, more: Capacity) -> None:
        """Checks that a single call of this client may hold this much more.

        Raises:
            QueueFullError: it exceeds the limit or the client's share.
        """
        held_after = self._held_by(client) + more
        if not held_after.fits(self.client_limit):
            raise self._rejection(f"This client has reached its limit of {self._limit_text(self.client_limit)}")
        held_by_calls = self._ledger.held(streams=False) + more
        fits = (held_by_calls + self._ledger.held(streams=True)).fits(self.limit)
        if self._somebody_waits and more.count and not held_by_calls.fits(self._call_limit):
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
        self._ledger.add(flow, change)
        if change.fits(NOTHING):
            self.grant_pending()

    def _rejection(self, reason: str) -> QueueFullError:
        if (due := self._rejections.count()) is not None:
            Context().run(_log_rejections, self._unit, *due)  # outside of this call: it is about many
        if self._on_rejection is not None:
            self._on_rejection()
        return QueueFullError(f"{reason}. Try again shortly, or send less at once.", RETRY_AFTER_S)

    def _enqueue(self, flow: FlowKey, capacity: Capacity) -> _PendingPermit:
        pending = _PendingPermit(flow.client, capacity, asyncio.get_running_loop().create_future())
        self._pending.push(flow, pending)
        self._tell_waiting(flow.client)
        self.grant_pending()
        return pending

    def _discard(self, flow: FlowKey, pending: _PendingPermit) -> None:
        self._pending.discard(flow, pending)
        self._tell_waiting(flow.client)

    @property
    def _somebody_waits(self) -> bool:
        return bool(self._pending) or self._ledger.others_wait

    def grant_pending(self) -> None:
        """Grants what waits and fits now. Called when something is released, also by another process."""
        if not self._somebody_waits:
            return
        # A client that has used up its share is skipped. For any other client the queue waits: otherwise small frames
        # could delay a large one forever.
        with self.exclusive():
            while (due := self._due()) is not None:
                capacity, flow, elsewhere = due
                held = self._ledger.held(streams=True)
                # What exceeds the limit, because that was higher when its stream began, is granted alone.
                held_by_streams = held + capacity if held != NOTHING else capacity.at_most(self._stream_limit)
                if not held_by_streams.fits(self._stream_limit):
                    return
                if not (held_by_streams + self._ledger.held(streams=False)).fits(self.limit):
                    return
                if elsewhere is not None:
                    self._ledger.wake(elsewhere)
                if flow is None:
                    return
                self._grant(flow)

    def _due(self) -> tuple[Capacity, FlowKey | None, WaitingProcess | None] | None:
        """What is granted next: its capacity, and its flow, or the other process in which it waits."""
        is_eligible = self._may_have
        if self._ledger.others_wait:
            first = self._ledger.first(self._is_within_share)
            if first is None:
                return None
            if first.client is None:
                return first.capacity, None, first
            client = first.client
            is_eligible = lambda pending: pending.client == client  # noqa: E731
        head = self._pending.head(is_eligible)
        return None if head is None else (head[1].capacity, head[0], None)

    def _grant(self, flow: FlowKey) -> None:
        pending = self._pending.pop(flow)
        self._ledger.served(flow.client)
        self._tell_waiting(flow.client)
        if not pending.granted.done():
            pending.granted.set_result(Permit(self, flow, pending.capacity))

    def _tell_waiting(self, client: str) -> None:
        """Tells other processes what waits here of this client."""
        if self._ledger.is_shared:
            head = self._pending.head(lambda pending: pending.client == client)
            self._ledger.set_waiting(client, None if head is None else head[1].capacity)

    def _may_have(self, pending: _PendingPermit) -> bool:
        held = (self._held(pending.client, streams=streams) for streams in (True, False))
        return self._is_within_share(pending.capacity, *held)

    def _is_within_share(self, more: Capacity, by_streams: Capacity, by_calls: Capacity) -> bool:
        """Whether the share of a client, which holds this much, allows this much more for its streams."""
        # A batch of the Open Inference Protocol that needs more than half of the share, or more than a share that has
        # become smaller, is admitted alone.
        if by_streams == NOTHING:
            return (more.at_most(self.client_limit) + by_calls).fits(self.client_limit)
        held_after = by_streams + more
        return held_after.fits(self._client_stream_limit) and (held_after + by_calls).fits(self.client_limit)

    def _held_by(self, client: str) -> Capacity:
        return self._held(client, streams=False) + self._held(client, streams=True)

    def _held(self, client: str, *, streams: bool) -> Capacity:
        return self._ledger.held_by(client, streams=streams)

    def _limit_text(self, limit: Capacity) -> str:
        size = f" and {limit.bytes / _MIB:.0f} MiB in total" if limit.bytes else ""
        return f"{counted(limit.count, self._unit)}{size}"


def _log_rejections(unit: str, count: int, since_s: float) -> None:
    if count == 1:
        _log.warning("Rejected 1 call: %s limit reached", unit)
    else:
        _log.warning("Rejected %d calls in %.0f s: %s limit reached", count, since_s, unit)
