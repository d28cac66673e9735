"""Time limits of a block of work, and of a call."""

from __future__ import annotations

import asyncio
from types import TracebackType

from patchserve_server.domain.errors import DeadlineError


class TimeLimited:
    """A block that ends with an error after a time. A class, because every call enters it: a generator costs more."""

    __slots__ = ("_error", "_limit", "_message")

    def __init__(self, limit_s: float | None, message: str, error: type[DeadlineError]) -> None:
        self._limit = asyncio.timeout(limit_s)
        self._message = message
        self._error = error

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError:  # of this limit: one from the block is not raised here
            raise self._error(self._message) from None


def deadline(remaining_s: float | None, default_s: float, longest_s: float) -> TimeLimited:
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
    return within(limit_s, message)


def within(limit_s: float | None, message: str, error: type[DeadlineError] = DeadlineError) -> TimeLimited:
    """Ends the block with an error after `limit_s`, independent of the call's deadline; None: no limit.

    Raises:
        DeadlineError: the time limit has passed. `error` is its class.
    """
    return TimeLimited(limit_s, message, error)
