"""Which callbacks keep an event loop busy for the longest time."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Final

_KEPT: Final = 12
_IGNORED_S: Final = 0.0005
_NAME_LENGTH: Final = 200


class Blocks:
    """Times every callback of asyncio's loops from now on, in processor time of the thread and by the clock.

    By the clock it includes waiting for the interpreter and for a core. Tasks are Python's own from now on, which can
    be told apart; they are slower than those in C.
    """

    def __init__(self) -> None:
        self._longest: list[tuple[float, float, str]] = []  # (processor s, clock s, what), a heap
        asyncio.Task = asyncio.tasks.Task = asyncio.tasks._PyTask  # type: ignore[attr-defined, misc]  # noqa: SLF001
        run = asyncio.Handle._run  # noqa: SLF001 - asyncio has no other place that sees every callback

        def timed(handle: asyncio.Handle) -> None:
            started_s, started_cpu_s = time.perf_counter(), time.thread_time()
            run(handle)
            cpu_s = time.thread_time() - started_cpu_s
            if cpu_s > _IGNORED_S:
                self._add(cpu_s, time.perf_counter() - started_s, handle)

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]  # noqa: SLF001

    def _add(self, cpu_s: float, wall_s: float, handle: asyncio.Handle) -> None:
        if len(self._longest) < _KEPT:
            heapq.heappush(self._longest, (cpu_s, wall_s, _name(handle)))
        elif cpu_s > self._longest[0][0]:
            heapq.heapreplace(self._longest, (cpu_s, wall_s, _name(handle)))

    def report(self) -> str:
        """A line for each of the longest: processor time and time by the clock, in ms, and what it was."""
        longest = sorted(self._longest, reverse=True)
        return "\n".join(f"{1000 * cpu_s:7.2f} {1000 * wall_s:7.2f}  {what}" for cpu_s, wall_s, what in longest)


def _name(handle: asyncio.Handle) -> str:
    """Which function, or which coroutine of a task. Without arguments and results, which may be images."""
    callback = handle._callback  # type: ignore[attr-defined]  # noqa: SLF001
    task = getattr(callback, "__self__", None)
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    return f"{getattr(coroutine or callback, '__qualname__', callback)} of {coroutine or callback!r}"[:_NAME_LENGTH]
