"""The threads that work on images, in turn between clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from patchserve_server.domain.work_events import StepLog, Wait
from patchserve_server.serving.fairness import FairSemaphore, FlowKey

T = TypeVar("T")


class ImagePool:
    """A pool with `threads` threads, which itself works in the order of arrival."""

    def __init__(self, executor: Executor, threads: int) -> None:
        self._executor = executor
        self._turns = FairSemaphore(threads + 1)  # one waits in the pool, so that no thread waits for the loop

    async def run(self, flow: FlowKey, log: StepLog, work: Callable[[], T]) -> T:
        """Does work that blocks, and enters its first step itself."""
        log.enter(Wait.THREAD)
        async with self._turns.turn(flow):
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
