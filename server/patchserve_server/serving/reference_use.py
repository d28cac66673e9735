"""A use of an open reference: it stays open until the block ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference import ReferenceInfo


@dataclass(frozen=True, slots=True, eq=False)
class OpenReference:
    """A revision that can be scored against."""

    info: ReferenceInfo
    scorer: Scorer


class HeldReference(Protocol):
    """A revision that somebody uses."""

    @property
    def reference(self) -> OpenReference: ...

    def release(self) -> None:
        """Ends the use. Called once."""


class ReferenceUse:
    """A use, in an asynchronous `with` statement. A class, because every call has one: a generator costs more.

    Args:
        acquire: opens the revision if needed, and begins to use it.
    """

    __slots__ = ("_acquire", "_held")

    def __init__(self, acquire: Callable[[], Awaitable[HeldReference]]) -> None:
        self._acquire = acquire
        self._held: HeldReference | None = None

    async def __aenter__(self) -> OpenReference:
        self._held = held = await self._acquire()
        return held.reference

    async def __aexit__(self, *_: object) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()
