"""A call over HTTP before it is admitted: who makes it, its line in the log, and its failure as a status."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any, Final

from google.rpc import status_pb2
from starlette.requests import HTTPConnection

from patchserve_server.access import Authenticator
from patchserve_server.contract.methods import Method
from patchserve_server.contract.status import status_of
from patchserve_server.domain.errors import PatchserveError, PermissionDeniedError, QueueFullError, UnauthenticatedError
from patchserve_server.serving.entrance import Entrance
from patchserve_server.web.authorization import Authorization
from patchserve_server.web.deadlines import timeout_of
from patchserve_server.web.peers import peer_of

_REFUSALS: Final = (QueueFullError, UnauthenticatedError, PermissionDeniedError)  # they cost a caller nothing

_log = logging.getLogger(__name__)


class IncomingCall:
    """A call before it is admitted.

    Args:
        name: of the call, for the log and for errors, such as `Infer`.
        method: what it may use.
        request: Starlette's.
        authenticator: None: callers need no token.
        entrance: what all faces of the server share.
    """

    def __init__(
        self,
        name: str,
        method: Method,
        request: HTTPConnection,
        authenticator: Authenticator | None,
        entrance: Entrance,
    ) -> None:
        self.request_id = uuid.uuid4().hex
        self.method = method
        self.request = request
        self.peer = peer_of(request.scope)
        self.authorization = Authorization(authenticator, request, name, method)
        self.timeout_s: float | None = None  # the caller's own time limit, after `authorize`
        # Until its response is sent, the call counts for --max-calls.
        self.until_answered = ExitStack()
        self._name = name
        self._entrance = entrance
        self._start_s = time.perf_counter()

    @property
    def client(self) -> str:
        """The token's name, else that of the client's certificate, else the peer's address without its port."""
        name = self.authorization.token_name
        return f"token {name}" if name else self.peer.client

    def authorize(self) -> None:
        """Checks the token and the caller's time limit.

        Raises:
            UnauthenticatedError, PermissionDeniedError, InvalidInputError.
        """
        self.authorization.check()
        self.timeout_s = timeout_of(self.request)

    async def run(self, work: Coroutine[Any, Any, None]) -> status_pb2.Status | None:
        """Awaits `work` and logs the end of the call; returns its failure. CancelledError is raised again."""
        try:
            await work
        except asyncio.CancelledError:
            _log.debug("%s", self._line())
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets it
            failure, is_refusal = status_of(error, self.request_id), isinstance(error, _REFUSALS)
            self._log_failure(error, failure.message)
        else:
            _log.log(logging.INFO if self.method.is_audited else logging.DEBUG, "%s", self._line())
            return None
        # Not in the `except` block: what is raised there refers to `error`, whose traceback keeps a bank in memory.
        if is_refusal:
            self.until_answered.close()  # refusals that wait must take no places from others
            await self._entrance.pacing.wait(self.client, self.timeout_s)
        return failure

    def _log_failure(self, error: Exception, message: str) -> None:
        if isinstance(error, QueueFullError):  # admission logs how many
            _log.debug("%s: %s", self._line(), message)
        else:
            reason = error.reason if isinstance(error, PatchserveError) else "INTERNAL"
            self._entrance.failures.add(reason, self.client, f"{self._line()}: {message}")

    def _line(self) -> str:
        caller = self.authorization.token_name or self.peer.certificate_name or "-"
        took_ms = (time.perf_counter() - self._start_s) * 1000
        return f"{self.request_id} HTTP {self._name} {caller} {took_ms:.0f} ms"
