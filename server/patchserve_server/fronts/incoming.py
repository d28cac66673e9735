"""What comes over a link, one item at a time: the images of a load, the chunks of a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Incoming(Generic[T]):
    """Passes items on, one at a time."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[T, asyncio.Future[None]] | None] = asyncio.Queue()

    async def put(self, content: T) -> None:
        """Returns when whoever takes it is done with it: the next one is asked for."""
        done = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((content, done))
        await done

    def end(self) -> None:
        """Nothing follows."""
        self._queue.put_nowait(None)

    async def items(self) -> AsyncIterator[T]:
        """All of them."""
        while (item := await self._queue.get()) is not None:
            content, done = item
            yield content
            del content, item  # they would stay in memory until the next one comes
            if not done.done():
                done.set_result(None)
