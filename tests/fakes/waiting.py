"""Wait for a state that no event announces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_POLL_S = 0.005


async def settle() -> None:
    """Let everything run that is ready to run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    """Return when `holds` is true; raise TimeoutError after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(_POLL_S)


def wait_until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    """`until`, outside of an event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not true after {timeout_s} s")
        time.sleep(_POLL_S)
