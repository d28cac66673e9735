"""A call over HTTP: who makes it, what it may use, its time limit, its line in the log and its errors."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from google.rpc import status_pb2
from starlette.requests import Request
from starlette.responses import Response

from patchserve_server.access import Authenticator
from patchserve_server.contract.calls import AdmittedCall
from patchserve_server.contract.methods import OPEN, InitialPermit, Method
from patchserve_server.contract.status import status_of
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import PatchserveError, PermissionDeniedError, QueueFullError, UnauthenticatedError
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.time_limits import within
from patchserve_server.web.bodies import Body
from patchserve_server.web.errors import ErrorFormat
from patchserve_server.web.listening import HttpListening
from patchserve_server.web.sessions import authorization_of

_PROBE_TIMEOUT_S: Final = 10.0
_REFUSALS: Final = (QueueFullError, UnauthenticatedError, PermissionDeniedError)  # they cost a caller nothing

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class HttpCall(AdmittedCall):
    """An admitted call, with its request. Its body is not read yet."""

    request: Request
    body: Body


Handler = Callable[[HttpCall], Awaitable[Response]]


class Calls:
    """Takes every call of the HTTP face through the entrance, as the adapter of gRPC does for its calls.

    Args:
        entrance: what all faces of the server share.
        authenticator: None: callers need no token.
        listening: limits on requests.
    """

    def __init__(self, entrance: Entrance, authenticator: Authenticator | None, listening: HttpListening) -> None:
        self._entrance = entrance
        self._authenticator = authenticator
        self._listening = listening

    def endpoint(
        self, name: str, method: Method, handler: Handler, error_format: ErrorFormat
    ) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of a route.

        Args:
            name: of the call, for the log and for errors, such as `Infer`.
            method: the scope, the permits and the time limit of the call.
            handler: answers an admitted call.
            error_format: writes its errors.
        """

        async def answer(request: Request) -> Response:
            return await self._answer(request, name, method, handler, error_format)

        return answer

    async def _answer(
        self, request: Request, name: str, method: Method, handler: Handler, error_format: ErrorFormat
    ) -> Response:
        request_id, started_s, client = uuid.uuid4().hex, time.perf_counter(), _peer(request)
        failure: status_pb2.Status | None = None
        is_refusal = False

        def line() -> str:
            return f"{request_id} HTTP {name} {client} {(time.perf_counter() - started_s) * 1000:.0f} ms"

        with ExitStack() as until_answered:
            try:
                client = self._authorize(request, name, method)
                with self._admitted(request, request_id, client, method, until_answered) as call:
                    limit_s, _ = method.timeout_s(call.application.limits)
                    async with within(limit_s, f"No result within {limit_s:g} s, the server's time limit."):
                        response = await handler(call)
            except asyncio.CancelledError:
                _log.debug("%s", line())
                raise
            except Exception as error:  # noqa: BLE001 - the caller gets it
                failure, is_refusal = status_of(error, request_id), isinstance(error, _REFUSALS)
                self._log_failure(error, client, f"{line()}: {failure.message}")
            else:
                _log.log(logging.INFO if method.is_audited else logging.DEBUG, "%s", line())
                return response
        # Not in the `except` block: what is raised there refers to `error`, whose traceback keeps a bank in memory.
        if is_refusal:
            await self._entrance.pacing.wait(client, None)
        return error_format(failure)

    def _authorize(self, request: Request, name: str, method: Method) -> str:
        """The client; raises UnauthenticatedError or PermissionDeniedError if it may not make this call."""
        if self._authenticator is None or method.scope == OPEN:
            return _peer(request)
        caller = self._authenticator.authenticate(authorization_of(request))
        if isinstance(method.scope, Scope) and method.scope not in caller.scopes:
            raise PermissionDeniedError(name, method.scope)
        return f"token {caller.name}"

    @contextmanager
    def _admitted(
        self, request: Request, request_id: str, client: str, method: Method, until_answered: ExitStack
    ) -> Iterator[HttpCall]:
        application, reception = self._entrance.readiness.application, self._entrance.reception
        is_load = method.initial_permit is InitialPermit.LOAD
        with reception.admitted(application, client, is_load=is_load, until_answered=until_answered) as (
            permit,
            holdings,
        ):
            body = Body(
                request,
                permit,
                method,
                max_bytes=self._listening.max_message_bytes,
                timeout_s=self._listening.first_message_timeout_s,
                waiting_calls=reception.waiting,
                holdings=holdings,
            )
            yield HttpCall(request_id, client, application, permit, request, body)

    def _log_failure(self, error: Exception, client: str, line: str) -> None:
        if isinstance(error, QueueFullError):  # admission logs how many
            _log.debug("%s", line)
        else:
            reason = error.reason if isinstance(error, PatchserveError) else "INTERNAL"
            self._entrance.failures.add(reason, client, line)


def _peer(request: Request) -> str:
    """The caller without a token: the peer's address without its port, written as gRPC writes it."""
    host = request.client.host if request.client is not None else ""
    return f"peer ipv6:%5B{host}%5D" if ":" in host else f"peer ipv4:{host}"
