"""The messages that a caller sends."""

from __future__ import annotations

from typing import Any, Self

from grpc import aio

from patchserve_server.rpc.calls import Context


class ReceivedMessages:
    """The messages of one call, as they arrive.

    gRPC's own iterator refers to itself, so that it would keep its last message and the whole call in memory until
    Python looks for cycles.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - a message of any method
        message = await self._context.read()
        if message is aio.EOF:
            raise StopAsyncIteration
        return message
