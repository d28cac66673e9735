"""Around every call but health checks: a request id, errors as statuses with details, a line in the log."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack, aclosing
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc import aio
from grpc_status import rpc_status

from patchserve_server.domain.errors import MalformedMessageError, QueueFullError, StalledReaderError
from patchserve_server.rpc.deadlines import within
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
Place: TypeAlias = AbstractContextManager[object]


class StatusInterceptor(aio.ServerInterceptor):
    """FairSemaphore whatever a method of these services raises into a google.rpc.Status. Cancellation passes untouched.

    Args:
        services: whose methods; all of them stream, as AdmissionInterceptor makes it.
        place: takes the place of a call until its status is out; raises where there is none.
        write_timeout_s: how long a message may wait for a caller who does not read.
    """

    def __init__(self, *services: str, place: Callable[[str, Context], Place], write_timeout_s: float) -> None:
        self._prefixes = tuple(f"/{service}/" for service in services)
        self._place = place
        self._write_timeout_s = write_timeout_s

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
            self._with_status(handler.stream_stream, method),
            request_deserializer=_parsed_by(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _with_status(self, behavior: Any, method: str) -> Any:  # noqa: ANN401 - grpc's handlers are untyped
        async def answer(requests: Any, context: Context) -> None:  # noqa: ANN401
            # The status of a caller who does not read waits for it; so long it counts as a call, and as nothing else.
            with ExitStack() as place:
                async with _Call(method.rpartition("/")[2], context):
                    place.enter_context(self._place(method, context))
                    async with aclosing(behavior(requests, context)) as responses:
                        async for response in responses:
                            if not await self._written(response, context):
                                return

        return answer

    async def _written(self, response: Any, context: Context) -> bool:  # noqa: ANN401
        """Whether the caller is still there."""
        message = f"For {self._write_timeout_s:g} s nobody has read the answers that are ready; read while you send."
        try:
            async with within(self._write_timeout_s, StalledReaderError(message)):
                await context.write(response)
        except aio.InternalError:  # it has gone in the middle of a message
            return False
        return True


def _parsed_by(deserializer: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - grpc's handlers are untyped
    def parsed(data: bytes) -> Any:  # noqa: ANN401
        try:
            return deserializer(data)
        except DecodeError as error:
            raise MalformedMessageError from error

    return parsed


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
        # Of calls that were refused admission tells in sum: a line each costs a quarter of a refusal.
        level = logging.DEBUG if isinstance(error, QueueFullError) else logging.INFO
        _log.log(level, "%s %s %s %.0f ms: %s", self._request_id, self._name, self._who(), took_ms, status.message)
        # grpc keeps what it raises here in a circle; the frames of the error must not stay with it, nor their bank.
        del error, _trace
        try:
            await self._context.abort_with_status(rpc_status.to_status(status))
        except aio.AbortError as abort:
            abort.__context__ = None
            raise

    def _who(self) -> str:
        """The token's name, or that of the client's certificate, or "-"."""
        return CALLER.get() or certificate_name(self._context) or "-"


def certificate_name(context: Context) -> str:
    """The name of the client's certificate as printable ASCII, or nothing."""
    names = context.auth_context().get("x509_common_name", [])
    return ascii(b"".join(names).decode(errors="replace"))[1:-1][:_MAX_NAME]
