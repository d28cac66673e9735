"""The adapter: the steps of every call, from authorization and admission to status and log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import Message

from patchserve_server.access import Authenticator
from patchserve_server.contract.methods import InitialPermit, Method
from patchserve_server.domain.errors import StreamProtocolError
from patchserve_server.rpc.authorization import authorize
from patchserve_server.rpc.calls import Call, Context, Endings, IncomingCall
from patchserve_server.rpc.methods import METHODS
from patchserve_server.rpc.parsing import parser_of
from patchserve_server.rpc.reading import Reading
from patchserve_server.rpc.receiving import ReceivedMessages, Requests
from patchserve_server.rpc.response_writer import ResponseWriter
from patchserve_server.rpc.transport import Listening
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.time_limits import deadline, within

_PROBE_TIMEOUT_S: Final = 10.0

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the type stubs only


class MethodAdapter(grpc.GenericRpcHandler):
    """Answers the calls of all methods. The functions that gRPC generates add services to it, in place of a server.

    gRPC itself knows only this handler: for each method that a server of grpc.aio knows, every call costs more.

    Args:
        entrance: what all faces of the server share.
        authenticator: None: callers need no token.
        listening: limits on messages and calls.
    """

    def __init__(self, entrance: Entrance, authenticator: Authenticator | None, listening: Listening) -> None:
        self._shared = _Shared(
            entrance,
            authenticator,
            listening,
            Endings(entrance, listening.write_timeout_s, listening.identity is not None),
            Reading(listening.reading, entrance.reception.waiting),
        )
        self._handlers: dict[str, Handler] = {}  # by full name of the method

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Adds the methods of a service.

        Raises:
            LookupError: a method is not in the table of methods.
        """
        for name, handler in handlers.items():
            full_name = f"/{service}/{name}"
            if (method := METHODS.get(full_name)) is None:
                raise LookupError(f"{full_name} is not in the table of methods.")
            adapted = _AdaptedMethod(full_name, method, handler, self._shared)
            # Without a deserializer, gRPC hands over the bytes of a message: they are checked before they are parsed.
            self._handlers[full_name] = grpc.stream_stream_rpc_method_handler(
                adapted.answer, response_serializer=_serialize
            )

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated functions add the same methods once more, for servers that do not know registered ones."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of a method; None: there is no such method."""
        return self._handlers.get(handler_call_details.method)


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """What all methods share."""

    entrance: Entrance
    authenticator: Authenticator | None
    listening: Listening
    endings: Endings
    reading: Reading


class _AdaptedMethod:
    """One method.

    A unary request is read here, as a stream of one message (as it is on the wire). It is read after authorization and
    admission, so that a rejected caller cannot send it.
    """

    def __init__(self, full_name: str, method: Method, handler: Any, shared: _Shared) -> None:  # noqa: ANN401 - gRPC's
        self._full_name = full_name
        self._method = method
        self._handler = handler
        self._shared = shared
        listening = shared.listening
        self._parser = parser_of(
            full_name,
            method,
            handler.request_deserializer,
            max_message_bytes=listening.max_message_bytes,
            max_reference_images=listening.max_reference_images,
        )

    async def answer(self, _: AsyncIterator[Any], context: Context) -> None:
        method = self._method
        is_stream = self._handler.stream_stream is not None and not method.always_answered
        incoming = IncomingCall(self._full_name, context, self._shared.endings, method, is_stream=is_stream)
        await incoming.run(self._answer(incoming))

    async def _answer(self, incoming: IncomingCall) -> None:
        method, shared = self._method, self._shared
        received: AsyncIterator[bytes] = ReceivedMessages(incoming.context)
        if shared.authenticator is not None:
            received = authorize(shared.authenticator, method, incoming, received)
        if method.always_answered:
            with shared.reading.probe(method, self._parser, incoming, received) as requests:
                await self._respond(requests, incoming.context, (_PROBE_TIMEOUT_S, _PROBE_TIMEOUT_S))
            return
        application, client = shared.entrance.readiness.application, incoming.client
        is_load = method.initial_permit is InitialPermit.LOAD
        until_sent = incoming.until_answered
        with shared.entrance.reception.admitted(application, client, is_load=is_load, until_answered=until_sent) as (
            permit,
            holdings,
        ):
            call = Call(incoming.request_id, client, application, permit, incoming.context)
            single = permit if self._handler.unary_unary is not None else None
            requests = shared.reading.requests(method, self._parser, received, holdings, single)
            await self._respond(requests, call, method.timeout_s(application.limits))

    async def _respond(self, requests: Requests, call: Call | Context, timeouts_s: tuple[float, float]) -> None:
        handler, context = self._handler, call.context if isinstance(call, Call) else call
        writer = ResponseWriter(context, self._shared.listening.write_timeout_s)
        if handler.stream_stream is not None:
            await _write_all(handler.stream_stream(requests, call), writer)
            return
        if handler.unary_stream is not None:
            # A download: it holds what it takes until it has ended, however slowly its caller reads.
            limit = within(None, "") if self._method.stays_open else deadline(context.time_remaining(), *timeouts_s)
            async with limit:
                await _write_all(handler.unary_stream(await _single(requests), call), writer)
            return
        async with deadline(context.time_remaining(), *timeouts_s):
            if handler.stream_unary is not None:
                response = await handler.stream_unary(requests, call)
            else:
                response = await handler.unary_unary(await _single(requests), call)
        await writer.write(response)


async def _write_all(stream: AsyncGenerator[Any], writer: ResponseWriter) -> None:
    async with aclosing(stream) as responses:
        async for response in responses:
            await writer.write(response)


async def _single(requests: Requests) -> Any:  # noqa: ANN401
    request = await anext(aiter(requests), None)
    if request is None:
        raise StreamProtocolError("The call ended without a request.")
    return request


def _serialize(response: Message | bytes) -> bytes:
    """Responses with images come as bytes, made on other threads."""
    return response if isinstance(response, bytes) else response.SerializeToString()
