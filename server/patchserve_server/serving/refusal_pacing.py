"""Refusals that come too often are answered later, so that a caller who tries again at once gains nothing by it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

BURST: Final = 100  # refusals of one client that are answered at once
INTERVAL_S: Final = 0.01  # between two of the others: fifty calls that respect RETRY_AFTER_S never wait
LONGEST_S: Final = 5.0
MAX_CLIENTS: Final = 1024  # that are remembered


class RefusalPacing:
    """Delays the refusals of a client that has many: each one follows the previous one after `INTERVAL_S`.

    Answering takes a third of a millisecond, so a caller with many calls that tries again at once would take a whole
    core. With 200 such calls, each refusal now comes after 2 s, and all together take four percent of a core.

    Args:
        max_delayed: how many refusals may wait at a time, over all clients. Others are answered at once, because each
            one that waits needs memory.
    """

    def __init__(self, max_delayed: int) -> None:
        self._max_delayed = max_delayed
        self._delayed = 0
        self._due_s: dict[str, float] = {}  # when the latest refusal of a client is due; long ago after a pause

    @property
    def delayed(self) -> int:
        """How many refusals wait now."""
        return self._delayed

    @property
    def remembered(self) -> int:
        """How many clients have a delay, or had refusals lately."""
        return len(self._due_s)

    async def wait(self, client: str, remaining_s: float | None) -> None:
        """Return when the client's next refusal is to be answered.

        Args:
            client: who is refused.
            remaining_s: until the call's deadline. At most half of it is used, so that the refusal still arrives.
        """
        delay_s = self.take_turn(client, time.monotonic())
        if remaining_s is not None:
            delay_s = min(delay_s, remaining_s / 2)
        if delay_s <= 0 or self._delayed >= self._max_delayed:
            return
        self._delayed += 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            self._delayed -= 1

    def take_turn(self, client: str, now_s: float) -> float:
        """The delay of a refusal of this client. None is due if it is 0 or less."""
        if client not in self._due_s and len(self._due_s) >= MAX_CLIENTS:
            self._forget_clients(now_s)
        earliest_s = now_s - BURST * INTERVAL_S
        due_s = max(self._due_s.get(client, earliest_s), earliest_s) + INTERVAL_S
        self._due_s[client] = min(due_s, now_s + LONGEST_S)
        return self._due_s[client] - now_s

    def _forget_clients(self, now_s: float) -> None:
        """Forgets the clients without a delay, else the one that has been refused for the longest time."""
        self._due_s = {client: due_s for client, due_s in self._due_s.items() if due_s > now_s}
        if len(self._due_s) >= MAX_CLIENTS:
            del self._due_s[next(iter(self._due_s))]
