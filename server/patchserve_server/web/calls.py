"""A call over HTTP: takes each one through the entrance, as the adapter of gRPC does for its calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from google.rpc import status_pb2
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from patchserve_server.access import Authenticator
from patchserve_server.contract.calls import AdmittedCall
from patchserve_server.contract.methods import InitialPermit, Method
from patchserve_server.domain.errors import StalledReaderError
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.reception import Holdings
from patchserve_server.serving.time_limits import deadline
from patchserve_server.web.bodies import Body
from patchserve_server.web.errors import ErrorFormat, close_code, reason_of
from patchserve_server.web.events import while_allowed
from patchserve_server.web.incoming import IncomingCall
from patchserve_server.web.listening import HttpListening
from patchserve_server.web.response_writer import ResponseWriter
from patchserve_server.web.sockets import Socket

_PROBE_TIMEOUT_S: Final = 10.0
_EVENTS_HEADERS: Final = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]


@dataclass(frozen=True, slots=True, eq=False)
class HttpCall(AdmittedCall):
    """An admitted call, with its request. Its body is not read yet."""

    request: Request
    body: Body


@dataclass(frozen=True, slots=True, eq=False)
class SocketCall(AdmittedCall):
    """An admitted call over a WebSocket."""

    socket: Socket
    holdings: Holdings


Handler: TypeAlias = Callable[[HttpCall], Awaitable[Response]]
ProbeHandler: TypeAlias = Callable[[Request], Awaitable[Response]]
EventsHandler: TypeAlias = Callable[[HttpCall], AsyncGenerator[bytes]]
SocketHandler: TypeAlias = Callable[[SocketCall], Awaitable[None]]
Endpoint: TypeAlias = Callable[[Request], Awaitable[ASGIApp]]
_Respond: TypeAlias = Callable[[Request, IncomingCall, ResponseWriter], Coroutine[Any, Any, None]]
_LastPart: TypeAlias = Callable[[status_pb2.Status], bytes]


class Calls:
    """Takes every call of the HTTP face through the entrance.

    Args:
        entrance: what all faces of the server share.
        authenticator: None: callers need no token.
        listening: limits on requests.
    """

    def __init__(self, entrance: Entrance, authenticator: Authenticator | None, listening: HttpListening) -> None:
        self._entrance = entrance
        self._authenticator = authenticator
        self._listening = listening

    def endpoint(self, name: str, method: Method, handler: Handler, error_format: ErrorFormat) -> Endpoint:
        """The endpoint of a route. The call holds its permit until its response is sent.

        Args:
            name: of the call, for the log and for errors, such as `Infer`.
            method: the scope, the permits and the time limit of the call.
            handler: answers an admitted call. It is cancelled if the caller leaves.
            error_format: writes its errors.
        """
        if method.always_answered:
            raise ValueError(f"{name} is a probe: it is not admitted.")

        async def respond(request: Request, incoming: IncomingCall, writer: ResponseWriter) -> None:
            incoming.authorize()
            with self._admitted(incoming) as (admitted, holdings):
                call = self._http_call(admitted, request, incoming.method, holdings)
                async with deadline(incoming.timeout_s, *method.timeout_s(call.application.limits)):
                    response = await handler(call)
                await response(request.scope, request.receive, writer.send)

        return self._endpoint(name, method, respond, error_format)

    def probe(self, name: str, method: Method, handler: ProbeHandler, error_format: ErrorFormat) -> Endpoint:
        """The endpoint of a probe, which is answered also while the server starts or is full."""

        async def respond(request: Request, incoming: IncomingCall, writer: ResponseWriter) -> None:
            incoming.authorize()
            async with deadline(incoming.timeout_s, _PROBE_TIMEOUT_S, _PROBE_TIMEOUT_S):
                response = await handler(request)
            await response(request.scope, request.receive, writer.send)

        return self._endpoint(name, method, respond, error_format)

    def events(
        self, name: str, method: Method, handler: EventsHandler, error_format: ErrorFormat, last_event: _LastPart
    ) -> Endpoint:
        """The endpoint of a stream of server-sent events, which lasts until its caller leaves or the server drains.

        Args:
            name, method: as of `endpoint`. The stream has no time limit, and holds its place until its end.
            handler: yields whole events. It is closed when the stream ends.
            error_format: writes an error before the first event.
            last_event: writes a later error.
        """

        async def respond(request: Request, incoming: IncomingCall, writer: ResponseWriter) -> None:
            incoming.authorize()
            if request.method == "HEAD":  # its answer has no events to wait for
                await writer.send_part(b"", _EVENTS_HEADERS, is_last=True)
                return
            with self._admitted(incoming) as (admitted, holdings):
                call = self._http_call(admitted, request, method, holdings)
                async with aclosing(handler(call)) as events:
                    allowed = while_allowed(events, incoming.authorization, self._entrance.readiness)
                    async with aclosing(allowed) as parts:
                        async for part in parts:
                            await writer.send_part(part, _EVENTS_HEADERS)
                await writer.send_part(b"", _EVENTS_HEADERS, is_last=True)

        return self._endpoint(name, method, respond, error_format, last_event)

    def websocket(
        self, name: str, method: Method, handler: SocketHandler, last_message: Callable[[status_pb2.Status], str]
    ) -> Callable[[WebSocket], Awaitable[None]]:
        """The endpoint of a WebSocketRoute. The call lasts until its handler returns or its caller leaves.

        Args:
            name, method: as of `endpoint`. The call has no time limit, and holds its place until its end.
            handler: talks with the caller of an admitted call.
            last_message: writes how the call ended, as the last message before the WebSocket is closed.
        """

        async def answer(websocket: WebSocket) -> None:
            incoming = IncomingCall(name, method, websocket, self._authenticator, self._entrance, is_stream=True)
            socket = Socket(websocket, incoming, self._entrance.reception.waiting)
            with incoming.until_answered:
                await socket.open()
                status = await incoming.failure_of(self._talk(incoming, socket, handler)) or status_pb2.Status()
                with suppress(StalledReaderError):
                    await socket.end(last_message(status), close_code(status), reason_of(status))

        return answer

    async def _talk(self, incoming: IncomingCall, socket: Socket, handler: SocketHandler) -> None:
        incoming.authorize()
        with self._admitted(incoming) as (admitted, holdings):
            call = SocketCall(
                admitted.request_id, admitted.client, admitted.application, admitted.permit, socket, holdings
            )
            await handler(call)

    def _endpoint(
        self,
        name: str,
        method: Method,
        respond: _Respond,
        error_format: ErrorFormat,
        last_part: _LastPart | None = None,
    ) -> Endpoint:
        async def answer(request: Request) -> ASGIApp:
            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                incoming = IncomingCall(name, method, request, self._authenticator, self._entrance)
                writer = ResponseWriter(send, incoming.request_id)
                with incoming.until_answered:
                    failure = await incoming.failure_of(respond(request, incoming, writer))
                    if failure is None:
                        return
                    with suppress(StalledReaderError):
                        if not writer.has_started:
                            await error_format(failure)(scope, receive, writer.send)
                        elif last_part is not None:
                            await writer.send_part(last_part(failure), _EVENTS_HEADERS, is_last=True)
                        else:
                            incoming.peer.abort()  # else the caller would take the response for complete

            return app

        return answer

    @contextmanager
    def _admitted(self, incoming: IncomingCall) -> Iterator[tuple[AdmittedCall, Holdings]]:
        application, client = self._entrance.readiness.application, incoming.client
        is_load = incoming.method.initial_permit is InitialPermit.LOAD
        with self._entrance.reception.admitted(
            application, client, is_load=is_load, until_answered=incoming.until_answered
        ) as (permit, holdings):
            yield AdmittedCall(incoming.request_id, client, application, permit), holdings

    def _http_call(self, admitted: AdmittedCall, request: Request, method: Method, holdings: Holdings) -> HttpCall:
        body = Body(
            request,
            admitted.permit,
            method,
            max_bytes=self._listening.max_message_bytes,
            timeout_s=self._listening.first_message_timeout_s,
            waiting_calls=self._entrance.reception.waiting,
            holdings=holdings,
        )
        return HttpCall(admitted.request_id, admitted.client, admitted.application, admitted.permit, request, body)
