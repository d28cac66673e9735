"""The other fronts of the server: what one of them can be asked, or told, by all others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

Question: TypeAlias = dict[str, Any]
"""Whatever JSON has."""

Answer: TypeAlias = tuple[dict[str, Any], bytes]
Answering: TypeAlias = Callable[[Question], Awaitable[Answer]]
Hearing: TypeAlias = Callable[[bytes], None]


class Line(Protocol):
    """Reaches the other fronts."""

    async def ask_others(self, name: str, question: Question) -> list[Answer]:
        """The answers of those that answer."""

    def tell_others(self, name: str, body: bytes) -> None:
        """Tells all of them. Returns at once."""


class Peers:
    """The other fronts of this server. A server of one process has none: then there is nobody to ask or to tell."""

    def __init__(self) -> None:
        self._answering: dict[str, Answering] = {}
        self._hearing: dict[str, Hearing] = {}
        self.line: Line | None = None  # None: alone, or not connected

    def answer_with(self, name: str, answering: Answering) -> None:
        """Answers questions of this name."""
        self._answering[name] = answering

    def hear_with(self, name: str, hearing: Hearing) -> None:
        """Takes messages of this name. It returns at once."""
        self._hearing[name] = hearing

    async def ask(self, name: str, question: Question) -> list[Answer]:
        """What the others answer. One that is not connected, or does not answer soon, is left out."""
        return [] if self.line is None else await self.line.ask_others(name, question)

    def tell(self, name: str, body: bytes) -> None:
        """Tells the others, as far as they are connected."""
        if self.line is not None:
            self.line.tell_others(name, body)

    async def answer(self, name: str, question: Question) -> Answer:
        """The answer to another front. There is nothing to say to what nobody here knows."""
        answering = self._answering.get(name)
        return ({}, b"") if answering is None else await answering(question)

    def hear(self, name: str, body: bytes) -> None:
        """Takes what another front tells."""
        if (hearing := self._hearing.get(name)) is not None:
            hearing(body)
