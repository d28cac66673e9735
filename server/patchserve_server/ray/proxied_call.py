"""A call in Ray's proxy: the deadline goes along with it, and a stream is read no faster than its caller reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from patchserve_server.ray.deadline import HEADER, header_of

MAX_UNREAD: Final = 256
"""How many answers of a stream its caller may leave unread. More than a stream may have in flight."""


class ProxiedContext:
    """gRPC's context, as Ray uses it, with the deadline among the metadata: they are all that a replica gets."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - gRPC's
        self._context = context

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        metadata = list(self._context.invocation_metadata() or ())
        remaining_s = self._context.time_remaining()
        return metadata if remaining_s is None else [*metadata, (HEADER, header_of(remaining_s))]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._context, name)


class Flow:
    """Holds back the requests of a stream whose responses are not read. Without it, Ray keeps them all in memory."""

    def __init__(self) -> None:
        self._unread = 0
        self._read = asyncio.Event()

    async def requests(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same requests. Each is expected to have one response."""
        async for request in requests:
            while self._unread >= MAX_UNREAD:
                self._read.clear()
                await self._read.wait()
            self._unread += 1
            yield request

    def sent(self) -> None:
        """Counts a response that the caller has taken."""
        self._unread -= 1
        self._read.set()
