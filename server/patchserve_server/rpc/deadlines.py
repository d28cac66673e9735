"""The end of a call whose caller waits no longer, or said nothing of how long it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio

from patchserve_server.domain.errors import DeadlineError


@asynccontextmanager
async def deadline(context: aio.ServicerContext[Any, Any], default_s: float) -> AsyncIterator[None]:
    """Ends the call at its own deadline, or after the default where it has none.

    Raises:
        DeadlineError: the time has passed.
    """
    remaining_s = context.time_remaining()
    try:
        async with asyncio.timeout(default_s if remaining_s is None else remaining_s):
            yield
    except TimeoutError as error:
        message = "The deadline passed before there was a result."
        if remaining_s is None:
            message = f"No result within {default_s:g} s, the deadline of a call that sets none."
        raise DeadlineError(message) from error


@asynccontextmanager
async def within(limit_s: float, error: DeadlineError) -> AsyncIterator[None]:
    """Ends with this error after so many seconds, whatever the call's deadline is."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise error from None
