"""Calls that wait for their caller to send something, and which of them ends when another caller needs its place."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from patchserve_server.domain.errors import MessageTimeoutError, PatchserveError

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Waiting:
    """A call while it waits for its caller's next message.

    Args:
        client: who makes the call.
        keeps_s: what the call holds and others may need (an admission, reading places), and for how many seconds of
            waiting nobody can take it away.
        give_back: gives all of it back at once. A second call does nothing.
        limit: the time limit of the wait, which runs while the call is waiting.
        is_first: whether no message of the call has come yet.
        since_s: when the wait began, by the clock of the loop.
    """

    client: str
    keeps_s: Mapping[object, float]
    give_back: Callable[[], None]
    limit: asyncio.Timeout
    is_first: bool = False
    since_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    error: PatchserveError | None = None  # why it was ended

    @property
    def can_be_ended(self) -> bool:
        return self.error is None and not self.limit.expired()

    def end(self, error: PatchserveError) -> None:
        """Ends the wait with this error, and gives back what the call holds."""
        self.error = error
        self.give_back()
        self.limit.reschedule(asyncio.get_running_loop().time())


class WaitingCalls:
    """All calls that wait for a message."""

    def __init__(self) -> None:
        self._waiting: dict[Waiting, None] = {}  # the longest waiting first

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def add(self, call: Waiting) -> Iterator[None]:
        """Counts the call as waiting while the block runs."""
        self._waiting[call] = None
        try:
            yield
        finally:
            del self._waiting[call]

    async def receive(self, coming: Awaitable[T], call: Waiting, late: str) -> T:
        """What comes from the caller, with the call counted as waiting until then.

        Args:
            coming: the caller's next message, or a part of it.
            call: waits for it, and has its time limit.
            late: what the caller is told if it does not come in time.

        Raises:
            MessageTimeoutError: it did not come in time.
            PatchserveError: the call was ended, with this error.
        """
        try:
            async with call.limit:
                with self.add(call):
                    data = await coming
            if call.error is None:  # else it was ended at the moment when the message came
                return data
        except TimeoutError:
            if call.error is None and not call.limit.expired():
                raise  # from a system call, not from this time limit
        if call.error is not None:
            raise call.error.copy()
        raise MessageTimeoutError(late)

    def end_overdue(self, held: object, error: PatchserveError, client: str | None = None) -> bool:
        """Ends the call that has waited longest, of the client with the most calls that no longer keep what they hold.

        Args:
            held: what is needed.
            error: what the caller of the ended call is told.
            client: end only a call of this client; None: of any.

        Returns:
            Whether there was such a call.
        """
        return self._end_one(self._overdue(held, client), error, more_than=0)

    def end_greediest(self, held: object, error: PatchserveError, for_client: str) -> bool:
        """Ends the longest waiting call of the client with the most, if `for_client` has fewer even with one more."""
        holding = [call for call in self._waiting if call.can_be_ended and held in call.keeps_s]
        own = sum(call.client == for_client for call in holding)
        return self._end_one([call for call in holding if call.client != for_client], error, more_than=own + 1)

    def end_first(self, error: PatchserveError) -> None:
        """Ends every call of which no message has come yet."""
        for call in self._waiting:
            if call.is_first and call.can_be_ended:
                call.end(error)

    def end_excess(self, held: object, error: PatchserveError, limit: int) -> None:
        """Leaves each client at most `limit` calls that no longer keep what they hold: those that waited least."""
        counts: Counter[str] = Counter()
        for call in reversed(self._overdue(held)):
            counts[call.client] += 1
            if counts[call.client] > limit:
                call.end(error)

    def _overdue(self, held: object, client: str | None = None) -> list[Waiting]:
        now_s = asyncio.get_running_loop().time()
        return [
            call
            for call in self._waiting
            if call.can_be_ended
            and (keeps_s := call.keeps_s.get(held)) is not None
            and now_s - call.since_s >= keeps_s
            and client in (None, call.client)
        ]

    def _end_one(self, calls: list[Waiting], error: PatchserveError, *, more_than: int) -> bool:
        counts = Counter(call.client for call in calls)
        for client, count in counts.most_common(1):
            if count > more_than:
                next(call for call in calls if call.client == client).end(error)
                return True
        return False
