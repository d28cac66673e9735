"""Time limits of a block of work, and of a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from patchserve_server.domain.errors import DeadlineError


@asynccontextmanager
async def deadline(remaining_s: float | None, default_s: float, longest_s: float) -> AsyncIterator[None]:
    """Ends the block at the call's own deadline, or after the default if it has none; in any case after `longest_s`.

    Raises:
        DeadlineError: the time limit has passed.
    """
    if remaining_s is None:
        limit_s = min(default_s, longest_s)
        message = f"No result within {limit_s:g} s, the server's time limit for calls without a deadline."
    elif remaining_s > longest_s:
        limit_s, message = longest_s, f"No result within {longest_s:g} s, the longest time limit of this server."
    else:
        limit_s, message = remaining_s, "The deadline passed before there was a result."
    async with within(limit_s, message):
        yield


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
