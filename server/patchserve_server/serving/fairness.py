"""Fair turns: round robin over clients, and over the streams of each."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
_stream_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class FlowKey:
    """Names work that stays in order: one stream, or all single calls of a client together (stream 0)."""

    client: str
    stream: int = 0

    @classmethod
    def of_stream(cls, client: str) -> FlowKey:
        """A new stream of this client."""
        return cls(client, next(_stream_numbers))

    @property
    def is_stream(self) -> bool:
        return self.stream != 0


class FairQueue(Generic[T]):
    """Items of many flows. Clients take turns, then the streams of each client. The items of one flow stay in order."""

    def __init__(self) -> None:
        # Both dicts are in the order of turns: a client or stream that was served moves to the end.
        self._clients: dict[str, dict[int, deque[T]]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many items there are. Any thread may ask."""
        return self._count

    def __iter__(self) -> Iterator[T]:
        """All items: client by client, stream by stream."""
        for streams in self._clients.values():
            for items in streams.values():
                yield from items

    def push(self, flow: FlowKey, item: T) -> None:
        self._clients.setdefault(flow.client, {}).setdefault(flow.stream, deque()).append(item)
        self._count += 1

    def discard(self, flow: FlowKey, item: T) -> None:
        """Removes an item, if it is still in the queue. A flow with other items keeps its turn."""
        streams = self._clients.get(flow.client, {})
        items = streams.get(flow.stream, deque())
        if item in items:
            items.remove(item)
            self._count -= 1
            if not items:
                del streams[flow.stream]
            if not streams:
                del self._clients[flow.client]

    def head(self, is_eligible: Callable[[T], bool] = lambda _: True) -> tuple[FlowKey, T] | None:
        """The next eligible item and its flow. Other items keep their place."""
        for client, streams in self._clients.items():
            for stream, items in streams.items():
                if is_eligible(items[0]):
                    return FlowKey(client, stream), items[0]
        return None

    def pop(self, flow: FlowKey) -> T:
        """Removes the flow's first item; the flow and its client move to the end."""
        item = self._clients[flow.client][flow.stream][0]
        self.discard(flow, item)
        self._end_turn(flow)
        self._end_turn_of_client(flow.client)
        return item

    def take(self, is_eligible: Callable[[T], bool]) -> Iterator[T]:
        """Removes eligible items, even from behind others: one of each client in turn, as long as there are some.

        A flow and its client move to the end, unless another item was before it: that one keeps its turn.
        """
        is_done = False
        while not is_done:
            is_done = True
            for client in list(self._clients):
                if (found := self._find(client, is_eligible)) is not None:
                    is_done = False
                    self._take(*found)
                    yield found[1]

    def _find(self, client: str, is_eligible: Callable[[T], bool]) -> tuple[FlowKey, T] | None:
        for stream, items in self._clients[client].items():
            for item in items:
                if is_eligible(item):
                    return FlowKey(client, stream), item
        return None

    def _take(self, flow: FlowKey, item: T) -> None:
        streams = self._clients[flow.client]
        is_flows_turn = streams[flow.stream][0] is item
        is_clients_turn = is_flows_turn and next(iter(streams)) == flow.stream
        self.discard(flow, item)
        if is_flows_turn:
            self._end_turn(flow)
        if is_clients_turn:
            self._end_turn_of_client(flow.client)

    def _end_turn(self, flow: FlowKey) -> None:
        streams = self._clients.get(flow.client, {})
        if flow.stream in streams:
            streams[flow.stream] = streams.pop(flow.stream)

    def _end_turn_of_client(self, client: str) -> None:
        if client in self._clients:
            self._clients[client] = self._clients.pop(client)


class Turn:
    """A turn of a FairSemaphore, held while the block runs. A caller that leaves while it waits uses none."""

    __slots__ = ("_semaphore", "flow", "is_held", "started", "weight")

    def __init__(self, semaphore: FairSemaphore, flow: FlowKey, weight: int) -> None:
        self._semaphore = semaphore
        self.flow = flow
        self.weight = weight
        self.is_held = False
        self.started: asyncio.Future[None] | None = None  # None: it has not waited

    async def __aenter__(self) -> None:
        if self._semaphore.start(self):
            return
        self.started = asyncio.get_running_loop().create_future()
        try:
            self._semaphore.enqueue(self)
            await self.started
        except BaseException:
            self._semaphore.end(self)  # it may have begun at the moment of the cancellation
            raise

    async def __aexit__(self, *_: object) -> None:
        self._semaphore.end(self)


class FairSemaphore:
    """Limits how many images are processed at once. The others wait in a fair queue, whose length admission limits.

    Args:
        value: how many turns there are.
        reserved: further turns, for clients that have none: so a client whose images take all turns delays another one
            only by what is being processed, and not by what it has waiting.
    """

    def __init__(self, value: int, reserved: int = 0) -> None:
        self._value = value
        self._reserved = reserved
        self._held = 0  # turns
        self._held_by: dict[str, int] = {}  # the same, by client
        self._queue: FairQueue[Turn] = FairQueue()

    @property
    def waiting(self) -> int:
        """How many turns are waited for. Any thread may ask."""
        return len(self._queue)

    def turn(self, flow: FlowKey, weight: int = 1) -> Turn:
        """A turn to wait for and to hold.

        `weight`: how many turns it counts as. Of more than there are, it is processed alone.
        """
        return Turn(self, flow, weight)

    def start(self, turn: Turn) -> bool:
        """Starts a turn at once, if nobody waits and there is room; returns whether it did."""
        if self._queue or not self._is_due(turn) or not self._has_room_for(turn):
            return False
        self._hold(turn)
        return True

    def enqueue(self, turn: Turn) -> None:
        """Starts a turn when it is due."""
        self._queue.push(turn.flow, turn)
        self._start_next()

    def end(self, turn: Turn) -> None:
        """Ends a turn, or its waiting."""
        if turn.is_held:
            turn.is_held = False
            client = turn.flow.client
            self._held -= turn.weight
            self._held_by[client] -= turn.weight
            if not self._held_by[client]:
                del self._held_by[client]
        else:
            self._queue.discard(turn.flow, turn)
        if self._queue:
            self._start_next()  # also if it only waited: others may have waited behind it

    def _hold(self, turn: Turn) -> None:
        turn.is_held = True
        client = turn.flow.client
        self._held += turn.weight
        self._held_by[client] = self._held_by.get(client, 0) + turn.weight

    def _start_next(self) -> None:
        # For one that is too heavy now, the others wait: otherwise light ones could delay it forever.
        while (head := self._queue.head(self._is_due)) is not None and self._has_room_for(head[1]):
            turn = self._queue.pop(head[0])
            if turn.started is not None and not turn.started.done():
                self._hold(turn)
                turn.started.set_result(None)

    def _is_due(self, turn: Turn) -> bool:
        return self._held < self._limit_for(turn)

    def _has_room_for(self, turn: Turn) -> bool:
        has_left = turn.started is not None and turn.started.done()
        return not self._held or has_left or self._held + turn.weight <= self._limit_for(turn)

    def _limit_for(self, turn: Turn) -> int:
        return self._value + (0 if turn.flow.client in self._held_by else self._reserved)
