"""A call before it is admitted, on any face: who makes it, its line in the log, and its failure as a status."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any, Final

from google.rpc import code_pb2, status_pb2

from patchserve_server.contract.status import status_of
from patchserve_server.domain.call_events import CallEnd, Face, current_call
from patchserve_server.domain.callers import client_of
from patchserve_server.domain.errors import PermissionDeniedError, QueueFullError, UnauthenticatedError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import reason_of
from patchserve_server.serving.entrance import Entrance

_REFUSALS: Final = (QueueFullError, UnauthenticatedError, PermissionDeniedError)  # they cost a caller nothing

_log = logging.getLogger(__name__)


class IncomingCallBase(ABC):
    """A call before it is admitted. Implements `domain.call_events.CallInfo`.

    Args:
        entrance: what all faces share.
        face: where it came in.
        service: of gRPC; empty over HTTP.
        method_name: such as `Infer`.
        address: of the peer, without its port.
        certificate_name: of the client's certificate; empty without one.
        is_audited: whether its success is logged for everybody to see.
        is_stream: whether images come in and results go out until one side ends it.
    """

    def __init__(
        self,
        entrance: Entrance,
        *,
        face: Face,
        service: str,
        method_name: str,
        address: str,
        certificate_name: str,
        is_audited: bool,
        is_stream: bool,
    ) -> None:
        self.request_id = secrets.token_hex(16)
        self.token_name = ""  # set after the token is verified; empty if none is needed
        self.until_answered = ExitStack()  # until its response is sent, the call counts for --max-calls
        self.face = face
        self.service = service
        self.method_name = method_name
        self.address = address
        self.is_stream = is_stream
        self.reference_id: ReferenceId | None = None
        self._certificate_name = certificate_name
        self._failures = entrance.failures
        self._pacing = entrance.pacing
        self._events = entrance.events
        self._is_audited = is_audited
        self._start_s = time.perf_counter()

    @property
    @abstractmethod
    def remaining_s(self) -> float | None:
        """Until the caller's own time limit; None: it sets none."""

    @abstractmethod
    def header(self, name: str) -> str:
        """A value of the caller's metadata, or of its headers, by its name in lower case; empty: it sent none."""

    @property
    def client(self) -> str:
        """The token's name, else that of the client's certificate, else the peer's address without its port."""
        return client_of(self.token_name, self._certificate_name, self.address)

    async def failure_of(self, work: Coroutine[Any, Any, None]) -> status_pb2.Status | None:
        """Awaits `work`, logs and tells the end of the call; returns its failure. CancelledError is raised again."""
        if self._events.is_heard:
            current_call.set(self)  # in the task of the call, which ends with it
            self._events.call_began(self)
        code, reason = code_pb2.CANCELLED, ""
        try:
            await work
            code = code_pb2.OK
        except asyncio.CancelledError:
            code = self._code_of_cancellation()
            self._log_end(logging.DEBUG)
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets it
            failure, is_refusal = status_of(error, self.request_id), isinstance(error, _REFUSALS)
            code, reason = failure.code, reason_of(error)
            self._log_failure(error, failure.message)
        else:
            self._log_end(logging.INFO if self._is_audited else logging.DEBUG)
            return None
        finally:
            if self._events.is_heard:
                duration_s = time.perf_counter() - self._start_s
                self._events.call_ended(self, CallEnd(code_pb2.Code.Name(code), reason, duration_s))
        # Not in the `except` block: what is raised there refers to `error`, whose traceback keeps a bank in memory.
        if is_refusal:
            self.until_answered.close()  # refusals that wait must take no places from others
            await self._pacing.wait(self.client, self.remaining_s)
        return failure

    def _code_of_cancellation(self) -> int:
        """The caller has left, or gRPC has ended the call at the caller's own deadline."""
        remaining_s = self.remaining_s
        is_over = remaining_s is not None and remaining_s <= 0
        return int(code_pb2.DEADLINE_EXCEEDED if is_over else code_pb2.CANCELLED)

    def _log_end(self, level: int) -> None:
        if _log.isEnabledFor(level):  # else its line is not made
            _log.log(level, "%s", self._line())

    def _log_failure(self, error: Exception, message: str) -> None:
        if isinstance(error, QueueFullError):  # admission logs how many
            _log.debug("%s: %s", self._line(), message)
        else:
            self._failures.add(reason_of(error), self.client, f"{self._line()}: {message}")

    def _line(self) -> str:
        caller = self.token_name or self._certificate_name or "-"
        took_ms = (time.perf_counter() - self._start_s) * 1000
        name = self.method_name if self.face is Face.GRPC else f"HTTP {self.method_name}"
        return f"{self.request_id} {name} {caller} {took_ms:.0f} ms"
