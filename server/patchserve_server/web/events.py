"""A response that goes on: as long as its caller may have it and the server does not drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from patchserve_server.domain.errors import DrainingError
from patchserve_server.serving.readiness import Readiness
from patchserve_server.web.authorization import RECHECK_INTERVAL_S, Authorization

SILENCE_S: Final = 15.0  # proxies close connections on which nothing comes
_COMMENT: Final = b":\n\n"  # of server-sent events; its reader ignores it


async def while_allowed(
    events: AsyncIterator[bytes], authorization: Authorization, readiness: Readiness
) -> AsyncGenerator[bytes]:
    """The events as they come, and a comment where none comes for a while.

    Raises:
        DrainingError: the server drains.
        UnauthenticatedError, PermissionDeniedError: the token is no longer valid, or has lost its scope.
    """
    loop = asyncio.get_running_loop()
    silent_since_s = loop.time()
    draining = asyncio.ensure_future(readiness.streams_end())
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait((coming, draining), timeout=RECHECK_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
            authorization.check_again()
            if coming.done():
                if (event := coming.result()) is None:
                    return
                coming = asyncio.ensure_future(anext(events, None))
                yield event
                silent_since_s = loop.time()
            elif draining.done():
                raise DrainingError
            elif loop.time() - silent_since_s >= SILENCE_S:
                yield _COMMENT
                silent_since_s = loop.time()
    finally:
        for task in (coming, draining):
            task.cancel()
        await asyncio.wait((coming, draining))  # so that `events` can be closed
