"""The workers that a detector's batches take turns for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TypeAlias

Batch: TypeAlias = Callable[[float], Awaitable[None]]
"""Does a batch that begins at this time, of `time.perf_counter`. It tells its callers itself what has failed."""


class BatchWorkers:
    """Runs batches, as many at once as there are workers.

    Args:
        count: of the workers.
        when_free: called when a worker has done its batch.
    """

    def __init__(self, count: int, when_free: Callable[[], None]) -> None:
        self._free = count
        self._when_free = when_free
        self._running: set[asyncio.Task[None]] = set()
        self._started_s: set[float] = set()

    @property
    def are_busy(self) -> bool:
        """Whether no worker is free."""
        return not self._free

    @property
    def longest_s(self) -> float:
        """How long the oldest of the running batches has been running; 0: there is none. Any thread may ask."""
        now_s = time.perf_counter()
        return now_s - min(self._started_s, default=now_s)

    def begin(self, batch: Batch) -> None:
        """Lets a free worker do this batch, in a task of no call: a batch is of several."""
        self._free -= 1
        task = asyncio.create_task(self._run(batch), context=Context())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, batch: Batch) -> None:
        started_s = time.perf_counter()
        self._started_s.add(started_s)
        try:
            await batch(started_s)
        finally:
            self._started_s.discard(started_s)
            self._free += 1
            self._when_free()
