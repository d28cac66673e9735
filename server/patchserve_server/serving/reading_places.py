"""Reading places: how many messages are received at a time.

gRPC receives a whole message before anybody can see its size. So what cannot be refused by its size is limited in
number. A message that arrived together with its call needs its place for less than a millisecond.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final, Self

from patchserve_server.domain.errors import IdleCallError, QueueFullError
from patchserve_server.serving.admission import RETRY_AFTER_S
from patchserve_server.serving.fairness import FairQueue, FlowKey
from patchserve_server.serving.waiting_calls import WaitingCalls

_TAKEN: Final = "The message did not arrive, and another call needed the place. Send it together with the call."

_Turn = asyncio.Future[None]


def places_of_one_client(count: int, *, is_shared: bool) -> int:
    """How many of `count` places one client gets: a third, but 2 at least; all of them if they are not shared."""
    return max(2, count // 3) if is_shared else count


class ReadingPlaces:
    """Places for messages that are being received. Others wait in turn between clients.

    Args:
        waiting_calls: calls that have a place and wait for their message.
        count: how many places there are.
        per_client: how many of them one client gets.
        keeps_s: how long a call keeps its place while others wait for one.
        max_queue: how many calls of one client wait for a place.
    """

    def __init__(
        self, waiting_calls: WaitingCalls, *, count: int, per_client: int, keeps_s: float, max_queue: int
    ) -> None:
        self.keeps_s = keeps_s
        self._waiting_calls = waiting_calls
        self._free = count
        self._per_client = per_client
        self._max_queue = max_queue
        self._held: Counter[str] = Counter()
        self._queued: Counter[str] = Counter()
        self._queue: FairQueue[tuple[str, _Turn]] = FairQueue()
        self._timer: asyncio.TimerHandle | None = None

    def place(self, client: str) -> ReadingPlace:
        """A place to wait for, and to hold until the block ends or it is given back before.

        Raises:
            QueueFullError: too many calls of this client wait already.
        """
        return ReadingPlace(self, client)

    async def take(self, client: str) -> None:
        """Waits for a place and takes it."""
        if self._is_free_for(client) and not self._queue:
            self._take(client)
        else:
            await self._wait(client)

    def _is_free_for(self, client: str) -> bool:
        return self._free > 0 and self._held[client] < self._per_client

    def _take(self, client: str) -> None:
        self._free -= 1
        self._held[client] += 1

    def release(self, client: str) -> None:
        self._free += 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        self._start_next()

    async def _wait(self, client: str) -> None:
        if self._queued[client] >= self._max_queue:
            raise QueueFullError("Too many calls of this client wait to be read. Try again shortly.", RETRY_AFTER_S)
        flow, turn = FlowKey(client), asyncio.get_running_loop().create_future()
        self._queue.push(flow, (client, turn))
        self._queued[client] += 1
        self._start_next()
        self._schedule()
        try:
            await turn
        except asyncio.CancelledError:
            self._queue.discard(flow, (client, turn))
            if turn.done() and not turn.cancelled():  # its turn began at the moment of the cancellation
                self.release(client)
            raise
        finally:
            self._queued[client] -= 1
            if not self._queued[client]:
                del self._queued[client]

    def _start_next(self) -> None:
        while (head := self._queue.head(lambda waiting: self._is_free_for(waiting[0]))) is not None:
            flow, (client, turn) = head
            self._queue.pop(flow)
            if not turn.done():
                self._take(client)
                turn.set_result(None)

    def _schedule(self) -> None:
        if self._timer is None and self._queue:
            self._timer = asyncio.get_running_loop().call_later(self.keeps_s / 4, self._make_room)

    def _make_room(self) -> None:
        """Takes a place from a call whose message does not come."""
        self._timer = None
        # If there are free places, every client in the queue has used up its own.
        for client in list(self._queued) if self._free else [None]:
            self._waiting_calls.end_overdue(self, IdleCallError(_TAKEN), client)
        self._schedule()


class ReadingPlace:
    """A place of one call, in an asynchronous `with` statement."""

    __slots__ = ("_client", "is_held", "places")

    def __init__(self, places: ReadingPlaces, client: str) -> None:
        self.places = places
        self._client = client
        self.is_held = False

    async def __aenter__(self) -> Self:
        await self.places.take(self._client)
        self.is_held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Gives it back. A second call does nothing."""
        if self.is_held:
            self.is_held = False
            self.places.release(self._client)
