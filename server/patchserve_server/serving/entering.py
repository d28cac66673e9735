"""Context managers that block, entered and left on another thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar

from patchserve_server.serving.tasks import retrieve_error

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
        entering.add_done_callback(retrieve_error)
        entering.add_done_callback(lambda done: None if done.exception() else executor.submit(leave))
        raise
    try:
        yield value
    finally:
        await asyncio.shield(loop.run_in_executor(executor, leave))
