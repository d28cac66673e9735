"""The adapter: the steps of every call, from authorization and admission to status and log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeAlias

import grpc
from grpc import aio

from patchserve_server.access import Authenticator
from patchserve_server.contract.methods import InitialPermit, Method
from patchserve_server.domain.errors import StreamProtocolError
from patchserve_server.rpc.authorization import authorize
from patchserve_server.rpc.calls import Call, Context, Endings, IncomingCall
from patchserve_server.rpc.methods import METHODS
from patchserve_server.rpc.parsing import MessageParser, parser_of
from patchserve_server.rpc.reading import Reading
from patchserve_server.rpc.receiving import ReceivedMessages, Requests
from patchserve_server.rpc.response_writer import ResponseWriter
from patchserve_server.rpc.transport import Listening
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.time_limits import deadline

_PROBE_TIMEOUT_S: Final = 10.0

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the type stubs only


class MethodAdapter(aio.ServerInterceptor):
    """Wraps the handler of every method.

    A unary request is read here, as a stream of one message (as it is on the wire). It is read after authorization and
    admission, so that a rejected caller cannot send it.

    Args:
        entrance: what all faces of the server share.
        authenticator: None: callers need no token.
        listening: limits on messages and calls.
    """

    def __init__(self, entrance: Entrance, authenticator: Authenticator | None, listening: Listening) -> None:
        self._entrance = entrance
        self._authenticator = authenticator
        self._listening = listening
        self._endings = Endings(entrance.failures, entrance.pacing, listening.write_timeout_s)
        self._reading = Reading(listening.reading, entrance.reception.waiting)
        self._parsers: dict[str, MessageParser] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        full_name = str(handler_call_details.method)

        async def answer(_: AsyncIterator[Any], context: Context) -> None:
            name, method = full_name.rpartition("/")[2], METHODS.get(full_name)
            is_audited = method is not None and method.is_audited
            incoming = IncomingCall(name, context, self._endings, is_audited=is_audited)
            await incoming.run(self._answer(full_name, handler, incoming))

        # Without a deserializer, gRPC hands over the bytes of a message: they are checked before they are parsed.
        return grpc.stream_stream_rpc_method_handler(answer, response_serializer=handler.response_serializer)

    async def _answer(
        self,
        full_name: str,
        handler: Any,  # noqa: ANN401 - gRPC's handlers are untyped
        incoming: IncomingCall,
    ) -> None:
        if (method := METHODS.get(full_name)) is None:
            raise LookupError(f"{full_name} is not in the table of methods.")
        parser = self._parser(full_name, method, handler)
        received: AsyncIterator[bytes] = ReceivedMessages(incoming.context)
        if self._authenticator is not None:
            received = authorize(self._authenticator, method, incoming, received)
        if method.always_answered:
            with self._reading.probe(method, parser, incoming, received) as requests:
                await self._respond(handler, requests, incoming.context, (_PROBE_TIMEOUT_S, _PROBE_TIMEOUT_S))
            return
        application, client = self._entrance.readiness.application, incoming.client
        is_load = method.initial_permit is InitialPermit.LOAD
        until_sent = incoming.until_answered
        with self._entrance.reception.admitted(application, client, is_load=is_load, until_answered=until_sent) as (
            permit,
            holdings,
        ):
            call = Call(incoming.request_id, client, application, permit, incoming.context)
            single = permit if handler.unary_unary is not None else None
            requests = self._reading.requests(method, parser, received, holdings, single)
            await self._respond(handler, requests, call, method.timeout_s(application.limits))

    def _parser(self, full_name: str, method: Method, handler: Any) -> MessageParser:  # noqa: ANN401
        if (parser := self._parsers.get(full_name)) is None:
            parser = self._parsers[full_name] = parser_of(
                full_name,
                method,
                handler.request_deserializer,
                max_message_bytes=self._listening.max_message_bytes,
                max_reference_images=self._listening.max_reference_images,
            )
        return parser

    async def _respond(
        self,
        handler: Any,  # noqa: ANN401
        requests: Requests,
        call: Call | Context,
        timeouts_s: tuple[float, float],
    ) -> None:
        context = call.context if isinstance(call, Call) else call
        writer = ResponseWriter(context, self._listening.write_timeout_s)
        if handler.response_streaming:
            if handler.request_streaming:
                stream = handler.stream_stream(requests, call)
            else:
                stream = handler.unary_stream(await _single(requests), call)
            async with aclosing(stream) as responses:
                async for response in responses:
                    await writer.write(response)
            return
        async with deadline(context.time_remaining(), *timeouts_s):
            if handler.stream_unary is not None:
                response = await handler.stream_unary(requests, call)
            else:
                response = await handler.unary_unary(await _single(requests), call)
        await writer.write(response)


async def _single(requests: Requests) -> Any:  # noqa: ANN401
    request = await anext(aiter(requests), None)
    if request is None:
        raise StreamProtocolError("The call ended without a request.")
    return request
