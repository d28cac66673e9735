"""Context managers that block, entered and left on another thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def entered(manager: AbstractContextManager[T], executor: Executor) -> AsyncIterator[T]:
    """Enters and leaves on the executor. Leaving is not cancelled, so that files are removed.

    Raises:
        What entering raises.
    """
    loop = asyncio.get_running_loop()
    leave = partial(manager.__exit__, None, None, None)
    entering = asyncio.ensure_future(loop.run_in_executor(executor, manager.__enter__))
    try:
        value = await asyncio.shield(entering)
    except asyncio.CancelledError:  # the caller left meanwhile
        entering.add_done_callback(lambda done: _leave_if_entered(done, executor, leave))
        raise
    try:
        yield value
    finally:
        await asyncio.shield(loop.run_in_executor(executor, leave))


def _leave_if_entered(done: asyncio.Future[T], executor: Executor, leave: Callable[[], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        executor.submit(leave)
