"""Time limits of a block of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from patchserve_server.domain.errors import DeadlineError


@asynccontextmanager
async def within(
    limit_s: float | None, message: str, error: type[DeadlineError] = DeadlineError
) -> AsyncIterator[None]:
    """Ends the block with an error after `limit_s`, independent of the call's deadline; None: no limit.

    Raises:
        DeadlineError: the time limit has passed. `error` is its class.
    """
    try:
        async with asyncio.timeout(limit_s) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise  # from a system call, not from this time limit
        raise error(message) from None
