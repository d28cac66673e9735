"""All connections to the HTTP port: how many there may be, and which one ends when another is needed more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from patchserve_server.domain.errors import QueueFullError
from patchserve_server.serving.admission import ONE, Admission, Capacity, Permit

_UNIT: Final = "HTTP connection"


class Connections:
    """A limit on open connections: each takes a file of the process. One without a request makes room for another.

    Args:
        limit: how many there may be.
        share: how many of them one client gets, as a part of what others leave.
    """

    def __init__(self, limit: int, share: float) -> None:
        self._admission = Admission(_UNIT, Capacity(limit), share=share, largest=ONE)
        self._open: set[ConnectionPlace] = set()
        self._idle: dict[ConnectionPlace, None] = {}  # the longest idle first
        self._none_is_open = asyncio.Event()
        self._none_is_open.set()

    @property
    def count(self) -> int:
        return self._admission.held.count

    def open(self, address: str, end: Callable[[], None]) -> ConnectionPlace:
        """A place for a new connection, which has no request yet.

        Args:
            address: at its other end.
            end: ends the connection at once.

        Raises:
            QueueFullError: all places are in use, or all of this client.
        """
        try:
            permit = self._admission.acquire(address, ONE)
        except QueueFullError:
            if not self._end_idle(address):
                raise
            permit = self._admission.acquire(address, ONE)
        place = ConnectionPlace(self, address, permit, end)
        self._open.add(place)
        self.set_idle(place, is_idle=True)
        self._none_is_open.clear()
        return place

    def set_idle(self, place: ConnectionPlace, *, is_idle: bool) -> None:
        """Notes whether an open connection has no request now."""
        self._idle.pop(place, None)
        if is_idle and place in self._open:
            self._idle[place] = None

    def discard(self, place: ConnectionPlace) -> None:
        """Forgets a connection that is closed."""
        self._idle.pop(place, None)
        self._open.discard(place)
        if not self._open:
            self._none_is_open.set()

    def end_all(self) -> None:
        """Ends every connection at once."""
        for place in list(self._open):
            place.end()

    async def all_closed(self) -> None:
        """Returns when no connection is open."""
        await self._none_is_open.wait()

    def _end_idle(self, address: str) -> bool:
        """Ends the connection that is idle longest: of the client itself if it has its share, else of who has most."""
        counts = Counter(place.address for place in self._idle)
        if not self._admission.is_within_share(address, ONE):
            counts = Counter({address: counts[address]})
        for owner, count in counts.most_common(1):
            if count:
                next(place for place in self._idle if place.address == owner).end()
                return True
        return False


class ConnectionPlace:
    """The place of one connection. A new connection is idle."""

    def __init__(self, connections: Connections, address: str, permit: Permit, end: Callable[[], None]) -> None:
        self._connections = connections
        self.address = address
        self._permit = permit
        self._end = end

    def set_idle(self, *, is_idle: bool) -> None:
        """Notes whether the connection has no request now."""
        self._connections.set_idle(self, is_idle=is_idle)

    def end(self) -> None:
        """Ends the connection at once, and gives its place back."""
        self.close()
        self._end()

    def close(self) -> None:
        """Gives the place of a closed connection back. A second call does nothing."""
        self._permit.release()
        self._connections.discard(self)
