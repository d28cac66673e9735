"""A bound on the pictures under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from patchserve_server.domain.errors import QueueFullError

RETRY_AFTER_S = 0.5


class Admission:
    """A fixed number of places. A unary call over it is refused at once; a stream waits, first come first served."""

    def __init__(self, what: str, places: int) -> None:
        self._what = what
        self._places = places
        self._free = asyncio.Semaphore(places)

    @asynccontextmanager
    async def refuse_when_full(self) -> AsyncIterator[None]:
        """Holds a place.

        Raises:
            QueueFullError: none is free.
        """
        if self._free.locked():
            message = f"All {self._places} places for {self._what} are taken; try again shortly, or send less at once."
            raise QueueFullError(message, RETRY_AFTER_S)
        async with self._free:
            yield

    @asynccontextmanager
    async def wait_when_full(self) -> AsyncIterator[None]:
        """Holds a place, waiting for one."""
        async with self._free:
            yield
