"""Around every call but health checks: a request id, errors as statuses with details, a line in the log."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc
from google.rpc import status_pb2
from grpc import aio
from grpc_status import rpc_status

from patchserve_server.rpc.status import status_of

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the call that is being answered; logs and INTERNAL errors name it."""

CALLER: ContextVar[str] = ContextVar("caller", default="")
"""Whose token the call has; empty where the server asks for none."""

# What changes what others get leaves a line at level info, with the name of who did it.
_CHANGES = frozenset({"LoadReference", "LoadReferenceStream", "DeleteReference"})
_MAX_NAME = 64

_log = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the type stubs only
Context = aio.ServicerContext[Any, Any]


class StatusInterceptor(aio.ServerInterceptor):
    """Turns whatever a method of these services raises into a google.rpc.Status. Cancellation passes untouched."""

    def __init__(self, *services: str) -> None:
        self._prefixes = tuple(f"/{service}/" for service in services)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith(self._prefixes):
            return handler
        name = method.rpartition("/")[2]
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(_streaming(handler.stream_stream, name), **coders)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(_unary(handler.stream_unary, name), **coders)
        return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, name), **coders)


def _unary(behaviour: Any, name: str) -> Any:  # noqa: ANN401 - grpc's handlers are untyped
    async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401
        async with _Call(name, context):
            return await behaviour(request, context)

    return answer


def _streaming(behaviour: Any, name: str) -> Any:  # noqa: ANN401
    async def answer(requests: Any, context: Context) -> None:  # noqa: ANN401
        async with _Call(name, context), aclosing(behaviour(requests, context)) as responses:
            async for response in responses:
                try:
                    await context.write(response)
                except aio.InternalError:  # the caller has gone in the middle of a message
                    return

    return answer


class _Call:
    """One call: named in the log, its errors sent as a status."""

    def __init__(self, name: str, context: Context) -> None:
        self._name = name
        self._context = context
        self._request_id = uuid.uuid4().hex
        self._began = time.perf_counter()

    async def __aenter__(self) -> None:
        REQUEST_ID.set(self._request_id)

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        took_ms = (time.perf_counter() - self._began) * 1000
        if error is None or not isinstance(error, Exception) or isinstance(error, aio.AbortError):
            level = logging.INFO if error is None and self._name in _CHANGES else logging.DEBUG
            _log.log(level, "%s %s %s %.0f ms", self._request_id, self._name, self._who(), took_ms)
            return
        status: status_pb2.Status = status_of(error, self._request_id)
        _log.info("%s %s %s %.0f ms: %s", self._request_id, self._name, self._who(), took_ms, status.message)
        await self._context.abort_with_status(rpc_status.to_status(status))

    def _who(self) -> str:
        """The token's name, or that of the client's certificate, or "-"."""
        names = self._context.auth_context().get("x509_common_name", [])
        certified = ascii(b"".join(names).decode(errors="replace"))[1:-1][:_MAX_NAME]
        return CALLER.get() or certified or "-"
