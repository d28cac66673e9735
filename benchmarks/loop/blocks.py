"""Which callbacks keep an event loop busy for the longest time."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Final

_KEPT: Final = 12
_IGNORED_S: Final = 0.0005


class Blocks:
    """Times every callback of asyncio's loops from now on, in processor time of the thread and by the clock.

    By the clock it includes waiting for the interpreter and for a core.
    """

    def __init__(self) -> None:
        self._longest: list[tuple[float, float, str]] = []  # (processor s, clock s, what), a heap
        run = asyncio.Handle._run  # noqa: SLF001 - asyncio has no other place that sees every callback

        def timed(handle: asyncio.Handle) -> None:
            started_s, started_cpu_s = time.perf_counter(), time.thread_time()
            run(handle)
            cpu_s = time.thread_time() - started_cpu_s
            if cpu_s > _IGNORED_S:
                self._add(cpu_s, time.perf_counter() - started_s, handle)

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]  # noqa: SLF001

    def _add(self, cpu_s: float, wall_s: float, handle: asyncio.Handle) -> None:
        block = (cpu_s, wall_s, repr(handle)[:300])
        if len(self._longest) < _KEPT:
            heapq.heappush(self._longest, block)
        else:
            heapq.heappushpop(self._longest, block)

    def report(self) -> str:
        """A line for each of the longest: processor time and time by the clock, in ms, and what it was."""
        longest = sorted(self._longest, reverse=True)
        return "\n".join(f"{1000 * cpu_s:7.2f} {1000 * wall_s:7.2f}  {what}" for cpu_s, wall_s, what in longest)
