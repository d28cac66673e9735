"""Writes the responses of a call, as long as its caller reads them."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from patchserve_server.domain.errors import StalledReaderError
from patchserve_server.rpc.calls import Context
from patchserve_server.serving.time_limits import within


class ResponseWriter:
    """Writes the responses of one call.

    Args:
        context: gRPC's context of the call.
        timeout_s: how long a response may wait for a caller that does not read.
    """

    def __init__(self, context: Context, timeout_s: float) -> None:
        self._context = context
        self._timeout_s = timeout_s
        self._headers_sent = False

    async def write(self, response: Any) -> None:  # noqa: ANN401 - a message of any method
        """Writes one response.

        Raises:
            StalledReaderError: the caller did not read in time.
            CancelledError: the caller has left, or its deadline has passed.
        """
        stalled = (
            f"The caller does not read its results: one has waited for {self._timeout_s:g} s. Read while you send."
        )
        try:
            async with within(self._timeout_s, stalled, StalledReaderError):
                if not self._headers_sent:
                    # On their own: sent with the first response, gRPC would count them as sent only after the caller
                    # has read that response. It would send them again with the status, which is an error.
                    await self._context.send_initial_metadata(())
                    self._headers_sent = True
                await self._context.write(response)
        except aio.InternalError:  # gRPC has not noticed it yet, and would try to send a status
            raise asyncio.CancelledError from None
