"""A call as a replica gets it from Ray: gRPC's context without gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc import aio
from ray.exceptions import RayActorError
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from patchserve_server.ray.deadline import HEADER, seconds_of

END: Final = b"\0"
"""The message after the last one of a stream that fails: it takes the status to the proxy, which drops it.

It is no message of protobuf. Ray sends a status along with a message, and loses the details of one that comes alone.
"""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message as Ray wants it from a method: something to serialize."""

    data: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name, which Ray calls
        return self.data


class RelayedCall:
    """The context of one call. Implements `rpc.calls.Context`.

    Args:
        messages: the bytes of each message of the caller.
        context: of Ray, which takes the status back to the proxy.
    """

    def __init__(self, messages: AsyncIterator[bytes], context: RayServegRPCContext) -> None:
        self._messages = messages
        self._context = context
        self._timeout_s = seconds_of(self._header(HEADER))
        self._began_s = time.monotonic()
        self._responses: asyncio.Queue[bytes] = asyncio.Queue(1)
        self.has_failed = False

    def peer(self) -> str:
        return self._context.peer()

    def time_remaining(self) -> float | None:
        return None if self._timeout_s is None else self._timeout_s - (time.monotonic() - self._began_s)

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return [(key, value) for key, value in self._context.invocation_metadata() if key != HEADER]

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._context.auth_context()

    async def read(self) -> Any:  # noqa: ANN401 - gRPC's EOF is no bytes
        """The next message.

        Raises:
            CancelledError: the caller has left.
        """
        try:
            message = await anext(self._messages, None)
        except RayActorError:  # the proxy has ended, and its connections with it
            raise asyncio.CancelledError from None
        if message is not None:
            return message
        if isinstance(self._messages, gRPCInputStream) and self._messages.is_cancelled():
            raise asyncio.CancelledError
        return aio.EOF

    async def write(self, message: Any) -> None:  # noqa: ANN401 - a message of any method, or its bytes
        await self._responses.put(message if isinstance(message, bytes) else message.SerializeToString())

    async def send_initial_metadata(self, initial_metadata: tuple[()]) -> None:
        """Nothing: the proxy sends them with the first message."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> None:
        self.has_failed = True
        self._context.set_code(code)
        self._context.set_details(details)
        self._context.set_trailing_metadata(list(trailing_metadata))  # type: ignore[arg-type] # bytes are fine

    async def responses(self, answering: asyncio.Task[None]) -> AsyncGenerator[bytes]:
        """What `answering` writes, until it has ended."""
        while True:
            coming = asyncio.ensure_future(self._responses.get())
            try:
                await asyncio.wait((coming, answering), return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() and self._responses.empty():
                    return
                yield await coming
            finally:
                coming.cancel()

    def _header(self, name: str) -> str:
        return next((str(value) for key, value in self._context.invocation_metadata() if key == name), "")
