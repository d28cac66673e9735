"""Time limits of a call: the caller's own deadline, or the default of a caller that sets none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from patchserve_server.rpc.calls import Context
from patchserve_server.serving.time_limits import within


@asynccontextmanager
async def deadline(context: Context, default_s: float) -> AsyncIterator[None]:
    """Ends the block at the call's own deadline, or after the default if it has none.

    Raises:
        DeadlineError: the time limit has passed.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None:
        message = f"No result within {default_s:g} s, the server's time limit for calls without a deadline."
    else:
        message = "The deadline passed before there was a result."
    async with within(default_s if remaining_s is None else remaining_s, message):
        yield
