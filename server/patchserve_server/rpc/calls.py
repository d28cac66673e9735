"""A call: who makes it, what it may use, its line in the log and its status."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from google.rpc import status_pb2
from grpc import aio
from grpc_status import rpc_status

from patchserve_server.contract.calls import AdmittedCall
from patchserve_server.contract.status import status_of
from patchserve_server.domain.callers import printable_name
from patchserve_server.domain.errors import PatchserveError, PermissionDeniedError, QueueFullError, UnauthenticatedError
from patchserve_server.rpc.reset import reset_current_call
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.serving.refusal_pacing import RefusalPacing

_REFUSALS = (QueueFullError, UnauthenticatedError, PermissionDeniedError)  # they cost a caller nothing

_log = logging.getLogger(__name__)

Context = aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Call(AdmittedCall):
    """An admitted call, with gRPC's context. Servicers get it in place of the context."""

    context: Context


@dataclass(frozen=True, slots=True)
class Endings:
    """How calls end.

    Args:
        failures: logs those that fail.
        pacing: when a refusal is answered.
        status_timeout_s: how long the status of a failed call may wait for a caller that does not read.
    """

    failures: FailureLog
    pacing: RefusalPacing
    status_timeout_s: float


class IncomingCall:
    """A call before it is admitted: its caller, its log line and its status."""

    def __init__(self, method_name: str, context: Context, endings: Endings, *, is_audited: bool) -> None:
        self.request_id = uuid.uuid4().hex
        self.method_name = method_name
        self.token_name = ""  # set after the token is verified; empty if none is needed
        self.context = context
        # If the caller does not read, its status waits. Until it is sent the call counts for --max-calls.
        self.until_status_is_sent = ExitStack()
        self._endings = endings
        self._is_audited = is_audited
        self._peer = context.peer().rpartition(":")[0]  # without its port. Later, gRPC may not know it any more
        self._start_s = time.perf_counter()

    @property
    def client(self) -> str:
        """The token's name, else that of the client's certificate, else the peer's address without its port."""
        if self.token_name:
            return f"token {self.token_name}"
        if name := _certificate_name(self.context):
            return f"certificate {name}"
        return f"peer {self._peer}"

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Awaits `work`, logs the end of the call and sends an error as a status. CancelledError is raised again."""
        with self.until_status_is_sent:
            await self._run(work)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        failure: status_pb2.Status | None = None
        is_refusal = False
        try:
            await work
        except asyncio.CancelledError:
            _log.debug("%s", self._line())
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets it
            failure, is_refusal = status_of(error, self.request_id), isinstance(error, _REFUSALS)
            self._log_failure(error, failure.message)
        else:
            _log.log(logging.INFO if self._is_audited else logging.DEBUG, "%s", self._line())
        # Not in the `except` block: what is raised there refers to `error`, whose traceback keeps a bank in memory.
        if is_refusal:
            self.until_status_is_sent.close()  # refusals that wait must take no places from others
            await self._endings.pacing.wait(self.client, self.context.time_remaining())
        if failure is not None:
            await self._send(failure)

    async def _send(self, failure: status_pb2.Status) -> None:
        try:
            async with asyncio.timeout(self._endings.status_timeout_s):
                await self.context.abort_with_status(rpc_status.to_status(failure))
        except TimeoutError:
            _log.debug("%s: the caller has not read its status, so the call is reset", self.request_id)
            reset_current_call()
        except aio.AbortError as sent:
            # gRPC keeps this exception with the call, and raises it again by itself. Its traceback would refer to this
            # frame, and so to the call: a cycle.
            sent.__traceback__ = None
        except aio.InternalError:
            _log.debug("%s: the caller has left, or its deadline has passed", self.request_id)

    def _log_failure(self, error: Exception, message: str) -> None:
        if isinstance(error, QueueFullError):  # admission logs how many
            _log.debug("%s: %s", self._line(), message)
        else:
            reason = error.reason if isinstance(error, PatchserveError) else "INTERNAL"
            self._endings.failures.add(reason, self.client, f"{self._line()}: {message}")

    def _line(self) -> str:
        caller = self.token_name or _certificate_name(self.context) or "-"
        took_ms = (time.perf_counter() - self._start_s) * 1000
        return f"{self.request_id} {self.method_name} {caller} {took_ms:.0f} ms"


def _certificate_name(context: Context) -> str:
    """The name in the client's certificate as printable ASCII; empty without a certificate."""
    names = context.auth_context().get("x509_common_name", [])
    return printable_name(b"".join(names).decode(errors="replace"))
