"""Ends a call whose caller reads nothing, not even its status."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

_log = logging.getLogger(__name__)


def reset_current_call() -> None:
    """Resets the stream of the call that this task answers, as soon as the task has ended.

    Until then gRPC keeps the responses that the caller has not read. It has no function for this in Python, but it
    resets a call that nothing refers to any more. What refers to it, besides the task that answers the call, is the
    task that waits for its end: that one is cancelled here.
    """
    answering = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not answering and _awaits_end_of(answering, task):
            task.cancel()
            return
    _log.warning("A call whose caller reads nothing stays in memory until its connection ends")


def _awaits_end_of(answering: asyncio.Task[Any] | None, task: asyncio.Task[Any]) -> bool:
    """Whether the coroutine of `task` is gRPC's and has `answering` among its variables."""
    coroutine = task.get_coro()
    if getattr(coroutine, "__name__", "") != "_schedule_rpc_coro":
        return False
    return any(answering is variable for scope in gc.get_referents(coroutine) for variable in gc.get_referents(scope))
