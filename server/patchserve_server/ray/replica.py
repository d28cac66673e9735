"""One replica: a whole server without a port, which answers the calls that Ray brings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import ray
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from patchserve_server.bootstrap.process import configure_process
from patchserve_server.ray.methods import RELAYED, RelayedMethod
from patchserve_server.ray.portless_server import PortlessServer
from patchserve_server.ray.relayed_call import END, Encoded, RelayedCall
from patchserve_server.ray.router import OPEN
from patchserve_server.ray.stopping import find_stop_flag

_MAX_OPEN_IDS: Final = 1000  # every proxy gets them every few seconds
_STOP_POLL_S: Final = 0.2


class Replica:
    """Ray calls the methods of the contract by their names, and those below by Ray's.

    Args:
        given: the settings that are not defaults.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        configure_process()
        has_several = serve.get_replica_context().world_size > 1
        self._server = PortlessServer({"threads": _cores(), **given}, has_several=has_several)
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        await self._server.open()
        self._draining = asyncio.ensure_future(self._drain_when_stopped(find_stop_flag()))

    async def check_health(self) -> None:
        """Returns when the server is ready; Ray sends no calls before. Later, it shows that the event loop runs.

        Raises:
            StartupError: the server cannot start with its settings.
        """
        await asyncio.shield(self._opening)

    async def record_routing_stats(self) -> dict[str, list[str]]:
        """What the routers of Ray know of this replica."""
        return {OPEN: self._server.open_ids()[-_MAX_OPEN_IDS:]}

    async def __call__(self, _request: Request) -> PlainTextResponse:
        """Answers what comes over HTTP, whose port Ray always opens."""
        return PlainTextResponse("This application answers over gRPC only.", 404)

    def __del__(self) -> None:
        """Ray calls it at the end of a drain."""
        self._server.close()

    async def _drain_when_stopped(self, is_stopping: Callable[[], bool]) -> None:
        while not is_stopping():  # noqa: ASYNC110 - Ray sets a flag, and no event
            await asyncio.sleep(_STOP_POLL_S)
        await self._server.drain()

    async def _single(self, method: str, requests: AsyncIterator[bytes], context: RayServegRPCContext) -> Encoded:
        """The one response of a method; an empty one with a status in the context."""
        response = b""
        async with aclosing(self._stream(method, requests, context)) as messages:
            async for message in messages:
                response = message.data
        return Encoded(b"" if response == END else response)

    async def _stream(
        self, method: str, requests: AsyncIterator[bytes], context: RayServegRPCContext
    ) -> AsyncGenerator[Encoded]:
        call = RelayedCall(requests, context)
        answering = asyncio.ensure_future(self._server.answer(method, call))
        try:
            async with aclosing(call.responses(answering)) as messages:
                async for message in messages:
                    yield Encoded(message)
            await answering
            if call.has_failed:
                yield Encoded(END)
        finally:
            answering.cancel()


def _cores() -> int:
    """The processor cores that Ray has reserved for this replica, as it divides a node by them."""
    assigned = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    return max(1, int(assigned.get("CPU", 0)))


def _method(method: RelayedMethod) -> Callable[..., Awaitable[Encoded] | AsyncIterator[Encoded]]:
    async def messages(request: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        yield request

    async def answer_one(self: Replica, request: Any, grpc_context: RayServegRPCContext) -> Encoded:  # noqa: ANN401
        requests = request if method.has_request_stream else messages(request)
        return await self._single(method.full_name, requests, grpc_context)

    async def answer_many(
        self: Replica,
        request: Any,  # noqa: ANN401
        grpc_context: RayServegRPCContext,
    ) -> AsyncIterator[Encoded]:
        requests = request if method.has_request_stream else messages(request)
        async with aclosing(self._stream(method.full_name, requests, grpc_context)) as responses:
            async for response in responses:
                yield response

    answer = answer_many if method.has_response_stream else answer_one
    answer.__name__ = method.name
    return answer


for _relayed in RELAYED:
    setattr(Replica, _relayed.name, _method(_relayed))
