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
from patchserve_server.domain.call_events import CALL_LOG, OK_LOG, CallEnd, Face, current_call
from patchserve_server.domain.callers import client_of
from patchserve_server.domain.errors import PermissionDeniedError, QueueFullError, UnauthenticatedError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.trace_parent import trace_id_of
from patchserve_server.domain.work_events import reason_of
from patchserve_server.serving.entrance import Entrance

_REFUSALS: Final = (QueueFullError, UnauthenticatedError, PermissionDeniedError)  # they cost a caller nothing

_log, _ok_log = logging.getLogger(CALL_LOG), logging.getLogger(OK_LOG)


class IncomingCallBase(ABC):
    """A call before it is admitted. Implements `domain.call_events.CallInfo`.

    Args:
        entrance: what all faces share.
        face: where it came in.
        service: of gRPC; empty over HTTP.
        method_name: such as `Infer`.
        address: of the peer, without its port.
        certificate_name: of the client's certificate; empty without one.
        is_audited: whether its success is logged whatever else is: it changes what other callers get.
        is_probe: whether it comes all the time, so that its success is worth no line.
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
        is_probe: bool,
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
        self.trace_parent = ""
        self._certificate_name = certificate_name
        self._failures = entrance.failures
        self._pacing = entrance.pacing
        self._events = entrance.events
        self._is_audited = is_audited
        self._is_probe = is_probe
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
        current_call.set(self)  # in the task of the call, which ends with it
        trace_parent = self.header("traceparent")
        self.trace_parent = trace_parent if trace_id_of(trace_parent) else ""
        if self._events.is_heard:
            self._events.call_began(self)
        code, reason = code_pb2.CANCELLED, ""
        try:
            await work
            code = code_pb2.OK
        except asyncio.CancelledError:
            code = self._code_of_cancellation()
            self._log_end(_ok_log, logging.INFO, code)
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets it
            failure, is_refusal = status_of(error, self.request_id), isinstance(error, _REFUSALS)
            code, reason = failure.code, reason_of(error)
            self._log_failure(error, failure)
        else:
            self._log_success()
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

    def _log_success(self) -> None:
        if self._is_audited:
            self._log_end(_log, logging.INFO, code_pb2.OK)
        else:
            self._log_end(_ok_log, logging.DEBUG if self._is_probe else logging.INFO, code_pb2.OK)

    def _log_end(self, log: logging.Logger, level: int, code: int) -> None:
        if log.isEnabledFor(level):  # else its line is not made
            fields = self._fields(code)
            log.log(level, "%s %s", self._name, fields["code"], extra=fields)

    def _log_failure(self, error: Exception, failure: status_pb2.Status) -> None:
        reason, fields = reason_of(error), self._fields(failure.code)
        line = f"{self._name} {fields['code']}: {failure.message}"
        if isinstance(error, QueueFullError):  # admission logs how many
            _log.debug("%s", line, extra={"reason": reason, **fields})
        else:
            self._failures.add(reason, self.client, line, fields)

    def _fields(self, code: int) -> dict[str, object]:
        took_ms = (time.perf_counter() - self._start_s) * 1000
        return {"code": code_pb2.Code.Name(code), "duration_ms": round(took_ms, 1)}

    @property
    def _name(self) -> str:
        return self.method_name if self.face is Face.GRPC else f"HTTP {self.method_name}"
