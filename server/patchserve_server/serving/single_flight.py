"""One piece of work at a time for each key, for all who need its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context
from typing import Generic, TypeVar

from patchserve_server.domain.errors import PatchserveError
from patchserve_server.serving.tasks import retrieve_error

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Does work for a key. Who asks while it runs gets the result of the next run, which begins after they have asked.

    So nobody gets what was read before they asked, and a key has one run at a time, and at most one that waits.

    Args:
        work: is done. It continues when all who wait for it have left.
    """

    def __init__(self, work: Callable[[K], Awaitable[T]]) -> None:
        self._work = work
        self._running: dict[K, asyncio.Task[T]] = {}
        self._waiting: dict[K, asyncio.Task[T]] = {}

    async def result(self, key: K) -> T:
        """The result of a run that begins from now on.

        Raises:
            What the work raises.
        """
        task = self._waiting.get(key)
        if task is None:
            # Of no call: several may wait for it.
            task = self._waiting[key] = asyncio.create_task(self._run(key), context=Context())
            task.add_done_callback(retrieve_error)
        try:
            return await asyncio.shield(task)
        except PatchserveError as error:
            raise error.copy() from None  # each caller has its own traceback
        finally:
            del task  # its error may refer to this frame: a cycle

    async def _run(self, key: K) -> T:
        if (before := self._running.get(key)) is not None:
            await asyncio.wait([before])
        task = self._running[key] = self._waiting.pop(key)
        try:
            return await self._work(key)
        finally:
            if self._running.get(key) is task:
                del self._running[key]
            del task, before
