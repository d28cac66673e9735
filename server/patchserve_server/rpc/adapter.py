"""The adapter: the steps of every call, from authorization and admission to status and log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from patchserve_server.access import Authenticator
from patchserve_server.domain.errors import MalformedMessageError, StalledReaderError, StreamProtocolError
from patchserve_server.rpc.authorization import authorize
from patchserve_server.rpc.calls import Call, Context, IncomingCall
from patchserve_server.rpc.deadlines import deadline
from patchserve_server.rpc.failure_log import FailureLog
from patchserve_server.rpc.methods import METHODS, InitialPermit, Method
from patchserve_server.serving.admission import ONE
from patchserve_server.serving.application import Application
from patchserve_server.serving.readiness import Readiness
from patchserve_server.serving.refusal_pacing import RefusalPacing
from patchserve_server.serving.time_limits import within

_PROBE_TIMEOUT_S: Final = 10.0

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the type stubs only


class MethodAdapter(aio.ServerInterceptor):
    """Wraps the handler of every method except health checks.

    A unary request is read here, as a stream of one message (as it is on the wire). It is read after authorization and
    admission, so that a rejected caller cannot send it.

    Args:
        readiness: has the application as soon as the server serves.
        authenticator: None: callers need no token.
        write_timeout_s: how long a response may wait for a caller that does not read.
        max_delayed_refusals: how many refusals wait at a time, of callers that try again too often.
    """

    def __init__(
        self,
        readiness: Readiness,
        authenticator: Authenticator | None,
        write_timeout_s: float,
        max_delayed_refusals: int,
    ) -> None:
        self._readiness = readiness
        self._authenticator = authenticator
        self._write_timeout_s = write_timeout_s
        self._failures = FailureLog()
        self._pacing = RefusalPacing(max_delayed_refusals)
        self._stalled = (
            f"The caller does not read its results: one has waited for {write_timeout_s:g} s. Read while you send."
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        full_name = str(handler_call_details.method)
        method = METHODS.get(full_name)
        if handler is None or (method is not None and method.is_health_check):
            return handler

        async def answer(requests: AsyncIterator[Any], context: Context) -> None:
            name, is_audited = full_name.rpartition("/")[2], method is not None and method.is_audited
            incoming = IncomingCall(name, context, self._failures, self._pacing, is_audited=is_audited)
            # If the caller does not read, its status waits. It then counts for --max-calls and nothing else.
            with ExitStack() as until_status_is_sent:
                await incoming.run(self._answer(method, handler, incoming, requests, until_status_is_sent))

        return grpc.stream_stream_rpc_method_handler(
            answer,
            request_deserializer=_parse_with(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    async def _answer(
        self,
        method: Method | None,
        handler: Any,  # noqa: ANN401 - gRPC's handlers are untyped
        incoming: IncomingCall,
        requests: AsyncIterator[Any],
        until_status_is_sent: ExitStack,
    ) -> None:
        if method is None:
            raise LookupError(f"{incoming.method_name} is not in the table of methods.")
        if self._authenticator is not None:
            requests = authorize(self._authenticator, method, incoming, requests)
        if method.always_answered:
            await self._respond(handler, requests, incoming.context, _PROBE_TIMEOUT_S)
            return
        application = self._readiness.application
        with _admitted(application, method, incoming, until_status_is_sent) as call:
            await self._respond(handler, requests, call, method.timeout_s(application.limits))

    async def _respond(
        self,
        handler: Any,  # noqa: ANN401
        requests: AsyncIterator[Any],
        call: Call | Context,
        timeout_s: float,
    ) -> None:
        context = call.context if isinstance(call, Call) else call
        if handler.stream_stream is not None:
            async with aclosing(handler.stream_stream(requests, call)) as responses:
                async for response in responses:
                    if not await self._write(response, context):
                        return
            return
        async with deadline(context, timeout_s):
            if handler.stream_unary is not None:
                response = await handler.stream_unary(requests, call)
            else:
                response = await handler.unary_unary(await _single(requests), call)
        await self._write(response, context)

    async def _write(self, response: Any, context: Context) -> bool:  # noqa: ANN401
        """Write one response. Returns whether the caller is still connected."""
        try:
            async with within(self._write_timeout_s, self._stalled, StalledReaderError):
                await context.write(response)
        except aio.InternalError:  # it disconnected in the middle of a message
            return False
        return True


@contextmanager
def _admitted(
    application: Application, method: Method, incoming: IncomingCall, until_status_is_sent: ExitStack
) -> Iterator[Call]:
    """The admitted call with its permits.

    Raises:
        QueueFullError: there is no capacity for one more call, image or load.
    """
    client = incoming.client
    until_status_is_sent.enter_context(application.calls.acquire(client, ONE))
    with ExitStack() as permits:
        if method.initial_permit is InitialPermit.LOAD:
            permits.enter_context(application.loads.acquire(client, ONE))
        permit = permits.enter_context(application.images.permit(client))
        if method.initial_permit is InitialPermit.IMAGE:
            permit.grow(ONE)
        yield Call(incoming.request_id, client, incoming.context, application, permit)


async def _single(requests: AsyncIterator[Any]) -> Any:  # noqa: ANN401
    request = await anext(aiter(requests), None)
    if request is None:
        raise StreamProtocolError("The call ended without a request.")
    return request


def _parse_with(deserialize: Any) -> Callable[[bytes], Any]:  # noqa: ANN401
    def parse(data: bytes) -> Any:  # noqa: ANN401
        try:
            return deserialize(data)
        except DecodeError as error:
            raise MalformedMessageError from error

    return parse
