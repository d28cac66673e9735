"""Whose turn it is: round robin over clients, and over the streams of each."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class FlowKey:
    """Work that is done in its own order: a stream, or all single calls of a client together (0)."""

    client: str
    stream: int = 0

    @classmethod
    def of_stream(cls, client: str) -> FlowKey:
        return cls(client, next(_NUMBERS))


class FairQueue(Generic[T]):
    """Items of many flows. Clients take turns, then the streams of each; within a flow the first comes first."""

    def __init__(self) -> None:
        # Both dicts are in the order of turns: who was served goes to the end.
        self._clients: dict[str, dict[int, deque[T]]] = {}

    def __bool__(self) -> bool:
        return bool(self._clients)

    def push(self, flow: FlowKey, item: T) -> None:
        self._clients.setdefault(flow.client, {}).setdefault(flow.stream, deque()).append(item)

    def discard(self, flow: FlowKey, item: T) -> None:
        """Takes an item out, if it is still there. Its flow keeps its turn where it has others."""
        streams = self._clients.get(flow.client, {})
        items = streams.get(flow.stream, deque())
        if item in items:
            items.remove(item)
            if not items:
                del streams[flow.stream]
            if not streams:
                del self._clients[flow.client]

    def head(self, may: Callable[[T], bool] = lambda _: True) -> tuple[FlowKey, T] | None:
        """The item whose turn it is, of those that may; others keep their place."""
        for client, streams in self._clients.items():
            for stream, items in streams.items():
                if may(items[0]):
                    return FlowKey(client, stream), items[0]
        return None

    def pop(self, flow: FlowKey) -> T:
        """The flow's first item; the flow and its client go to the end."""
        streams = self._clients.pop(flow.client)
        items = streams.pop(flow.stream)
        item = items.popleft()
        if items:
            streams[flow.stream] = items
        if streams:
            self._clients[flow.client] = streams
        return item


class FairSemaphore:
    """A fixed number of images are worked on; the others wait in a fair queue. Admission bounds how many wait."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def turn(self, flow: FlowKey) -> AsyncIterator[None]:
        """Waits for a turn and has it until the block ends. Who leaves while it waits costs nobody anything."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push(flow, turn)
        self._call_next()
        try:
            await turn
            yield
        finally:
            self._waiting.discard(flow, turn)
            if turn.done() and not turn.cancelled():  # a turn may come in the moment in which its caller leaves
                self._free += 1
                self._call_next()

    def _call_next(self) -> None:
        while self._free and (next_ := self._waiting.head()) is not None:
            turn = self._waiting.pop(next_[0])
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
