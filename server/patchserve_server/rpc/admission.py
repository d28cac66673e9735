"""Bounds on a call before its message is read, and whose share it takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, Final

import grpc
from grpc import aio

from patchserve_server.domain.errors import StreamProtocolError
from patchserve_server.rpc.authorization import KSERVE
from patchserve_server.rpc.deadlines import deadline
from patchserve_server.rpc.interceptors import CALLER, Context, Handler, certificate_name
from patchserve_server.serving.admission import Admission, Capacity
from patchserve_server.serving.application import Application

ONE: Final = Capacity(1)
# Answered while the server starts and when it is full, as health checks are.
PROBES: Final = frozenset(f"/{KSERVE}/{name}" for name in ("ServerLive", "ServerReady", "ModelReady"))
_PROBE_TIMEOUT_S: Final = 10.0


def client_of(context: Context) -> str:
    """The token's name, else that of the client's certificate, else the peer's address without its port."""
    if caller := CALLER.get():
        return f"token {caller}"
    if name := certificate_name(context):
        return f"certificate {name}"
    return f"peer {context.peer().rpartition(':')[0]}"


class AdmissionInterceptor(aio.ServerInterceptor):
    """Takes the place of an image or of a load before its message is read: who is refused does not get to send it.

    To that end a unary request is read here, as the stream of one message that it is on the wire.
    """

    def __init__(self, *services: str, application: Callable[[], Application]) -> None:
        self._prefixes = tuple(f"/{service}/" for service in services)
        self._application = application

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith(self._prefixes):
            return handler
        return grpc.stream_stream_rpc_method_handler(
            self._probed(handler) if method in PROBES else self._admitted(handler, method.rpartition("/")[2]),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _admitted(self, handler: Any, name: str) -> Any:  # noqa: ANN401 - grpc's handlers are untyped
        async def answer(requests: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any]:
            application = self._application()
            limits = application.limits
            with _place(application, name, context):
                if handler.stream_stream is not None:
                    async with aclosing(handler.stream_stream(requests, context)) as responses:
                        async for response in responses:
                            yield response
                elif handler.stream_unary is not None:
                    yield await handler.stream_unary(requests, context)
                else:
                    timeout_s = limits.load_timeout_s if name == "LoadReference" else limits.default_timeout_s
                    yield await handler.unary_unary(await _only(requests, context, timeout_s), context)

        return answer

    def _probed(self, handler: Any) -> Any:  # noqa: ANN401
        async def answer(requests: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any]:
            yield await handler.unary_unary(await _only(requests, context, _PROBE_TIMEOUT_S), context)

        return answer


async def _only(requests: AsyncIterator[Any], context: Context, timeout_s: float) -> Any:  # noqa: ANN401
    async with deadline(context, timeout_s):
        request = await anext(aiter(requests), None)
    if request is None:
        raise StreamProtocolError("The call ended without a request.")
    return request


def _place(application: Application, name: str, context: Context) -> AbstractContextManager[object]:
    admission: Admission | None = None
    if name in ("Infer", "ModelInfer"):
        admission = application.images
    elif name in ("LoadReference", "LoadReferenceStream"):
        admission = application.loads
    return nullcontext() if admission is None else admission.take(client_of(context), ONE)
