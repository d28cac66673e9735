"""Overlays that `/infer_json` keeps, so that callers can get them as files."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.http_errors import OutputNotFoundError
from patchserve_server.serving.admission import NOTHING, Capacity
from patchserve_server.serving.peers import Answer, Peers, Question

LIMIT: Final = Capacity(512, 128 * 2**20)
MAX_AGE_S: Final = 600.0
_NAME: Final = "kept overlay"


@dataclass(frozen=True, slots=True, eq=False)
class _Overlay:
    client: str
    data: bytes
    until_s: float  # in the event loop's time

    @property
    def capacity(self) -> Capacity:
        return Capacity(1, len(self.data))


class KeptOverlays:
    """Overlays by name. Their number, their bytes and their age are limited, and a name cannot be guessed.

    If there is no room for a new one, the client that holds most loses its oldest. So all of the room is there for a
    client that is alone, and nobody can push out what another client has just got.

    Args:
        limit: of all overlays together.
        max_age_s: how long an overlay is kept.
        peers: the other fronts, which have overlays of their own.
    """

    def __init__(self, limit: Capacity, max_age_s: float = MAX_AGE_S, peers: Peers | None = None) -> None:
        self._peers = peers or Peers()
        self._peers.answer_with(_NAME, self._answer)
        self._limit = limit
        self._max_age_s = max_age_s
        self._overlays: dict[str, _Overlay] = {}  # the oldest first
        self._held: dict[str, Capacity] = {}  # by client
        self._sweep: asyncio.TimerHandle | None = None

    def add(self, client: str, data: bytes) -> str:
        """Keeps an overlay of this client; returns its name."""
        loop = asyncio.get_running_loop()
        name = f"result_{secrets.token_hex(16)}.png"
        overlay = self._overlays[name] = _Overlay(client, data, loop.time() + self._max_age_s)
        self._held[client] = self._held.get(client, NOTHING) + overlay.capacity
        while not self.held.fits(self._limit):
            self._remove(self._oldest_of(self._greediest()))
        if self._sweep is None:
            self._sweep = loop.call_later(self._max_age_s, self._remove_old)
        return name

    def get(self, name: str) -> bytes:
        """The overlay.

        Raises:
            OutputNotFoundError: there is none of this name, or no longer.
        """
        overlay = self._overlays.get(name)
        if overlay is None or overlay.until_s <= asyncio.get_running_loop().time():
            raise OutputNotFoundError
        return overlay.data

    async def find(self, name: str) -> bytes:
        """The overlay, whichever front keeps it.

        Raises:
            OutputNotFoundError: there is none of this name, or no longer.
        """
        try:
            return self.get(name)
        except OutputNotFoundError:
            for _, overlay in await self._peers.ask(_NAME, {"name": name}):
                if overlay:
                    return overlay
            raise

    async def _answer(self, question: Question) -> Answer:
        try:
            return {}, self.get(question["name"])
        except OutputNotFoundError:
            return {}, b""

    @property
    def held(self) -> Capacity:
        """What all overlays need together."""
        return sum(self._held.values(), NOTHING)

    def _greediest(self) -> str:
        if self.held.count > self._limit.count:
            return max(self._held, key=lambda client: self._held[client].count)
        return max(self._held, key=lambda client: self._held[client].bytes)

    def _oldest_of(self, client: str) -> str:
        return next(name for name, overlay in self._overlays.items() if overlay.client == client)

    def _remove(self, name: str) -> None:
        overlay = self._overlays.pop(name)
        self._held[overlay.client] -= overlay.capacity
        if self._held[overlay.client] == NOTHING:
            del self._held[overlay.client]

    def _remove_old(self) -> None:
        self._sweep, now_s = None, asyncio.get_running_loop().time()
        for name in [name for name, overlay in self._overlays.items() if overlay.until_s <= now_s]:
            self._remove(name)
        if self._overlays:
            oldest = next(iter(self._overlays.values()))
            self._sweep = asyncio.get_running_loop().call_at(oldest.until_s, self._remove_old)
