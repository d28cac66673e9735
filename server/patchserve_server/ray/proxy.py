"""What runs in Ray's proxies: they register the services, and put back what Ray's gRPC leaves out of a call.

Ray asks for functions that add servicers to a server, and replaces the handlers that they add by its own, which send
calls to replicas. Here they are handlers of bytes, so that a proxy parses no message, and each of Ray's gets a wrapper.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import grpc

from patchserve_server.ray.mending import mend_status
from patchserve_server.ray.methods import RELAYED, RelayedMethod
from patchserve_server.ray.proxied_call import Flow, ProxiedContext
from patchserve_server.ray.relayed_call import END

Handler = Any  # grpc.RpcMethodHandler, which is generic in the type stubs only


def add_services(_servicer: object, server: grpc.aio.Server) -> None:
    """Add all methods to a proxy: `grpc_servicer_functions: [patchserve_server.ray.proxy:add_services]`."""
    for service in dict.fromkeys(method.service for method in RELAYED):
        handlers = _Handlers([method for method in RELAYED if method.service == service])
        server.add_generic_rpc_handlers((handlers,))
        handlers.wrap()


class _Handlers(grpc.GenericRpcHandler):
    """The handlers of one service."""

    def __init__(self, methods: list[RelayedMethod]) -> None:
        # As in gRPC's own class of this kind: here Ray looks for the handlers, and puts its own in their place.
        self._method_handlers: dict[str, Handler] = {method.full_name: _handler(method) for method in methods}
        self._wrapped: dict[str, Handler] = {}

    def wrap(self) -> None:
        """Wraps the handlers that are there now."""
        self._wrapped = {name: _wrapped(handler) for name, handler in self._method_handlers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        return self._wrapped.get(handler_call_details.method)


def _handler(method: RelayedMethod) -> Handler:
    """A handler of this kind. Without (de)serializers, messages are bytes."""
    kinds: Final[dict[tuple[bool, bool], Callable[[Any], Handler]]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return kinds[method.has_request_stream, method.has_response_stream](None)


@asynccontextmanager
async def _closing(messages: AsyncGenerator[bytes]) -> AsyncIterator[AsyncGenerator[bytes]]:
    try:
        yield messages
    finally:
        with suppress(RuntimeError):  # when it is closed before its end, Ray's generator yields a status once more
            await messages.aclose()


def _wrapped(handler: Handler) -> Handler:
    async def unary_unary(request: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC's
        response: bytes = await handler.unary_unary(request, ProxiedContext(context))
        mend_status(context)
        return response

    async def stream_unary(requests: AsyncIterator[bytes], context: Any) -> bytes:  # noqa: ANN401
        response: bytes = await handler.stream_unary(requests, ProxiedContext(context))
        mend_status(context)
        return response

    async def unary_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        async with _closing(handler.unary_stream(request, ProxiedContext(context))) as messages:
            async for message in messages:
                if message != END:
                    yield message
        mend_status(context)

    async def stream_stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        flow = Flow()
        async with _closing(handler.stream_stream(flow.requests(requests), ProxiedContext(context))) as messages:
            async for message in messages:
                if message != END:
                    yield message  # returns when gRPC has taken it: a caller that does not read holds it up
                    flow.sent()
        mend_status(context)

    return handler._replace(
        unary_unary=unary_unary, unary_stream=unary_stream, stream_unary=stream_unary, stream_stream=stream_stream
    )
