"""Time limits of a call: the caller's own deadline, or the default of a caller that sets none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from patchserve_server.rpc.calls import Context
from patchserve_server.serving.time_limits import within


@asynccontextmanager
async def deadline(context: Context, default_s: float, longest_s: float) -> AsyncIterator[None]:
    """Ends the block at the call's own deadline, or after the default if it has none; in any case after `longest_s`.

    Raises:
        DeadlineError: the time limit has passed.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None:
        limit_s = min(default_s, longest_s)
        message = f"No result within {limit_s:g} s, the server's time limit for calls without a deadline."
    elif remaining_s > longest_s:
        limit_s, message = longest_s, f"No result within {longest_s:g} s, the longest time limit of this server."
    else:
        limit_s, message = remaining_s, "The deadline passed before there was a result."
    async with within(limit_s, message):
        yield
