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

from google.rpc import status_pb2

from patchserve_server.contract.status import status_of
from patchserve_server.domain.callers import client_of
from patchserve_server.domain.errors import PatchserveError, PermissionDeniedError, QueueFullError, UnauthenticatedError
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.serving.refusal_pacing import RefusalPacing

_REFUSALS: Final = (QueueFullError, UnauthenticatedError, PermissionDeniedError)  # they cost a caller nothing

_log = logging.getLogger(__name__)


class IncomingCallBase(ABC):
    """A call before it is admitted.

    Args:
        name: of the call, for the log, such as `Infer`.
        address: of the peer, without its port.
        certificate_name: of the client's certificate; empty without one.
        failures: logs calls that fail.
        pacing: when a refusal is answered.
        is_audited: whether its success is logged for everybody to see.
    """

    def __init__(
        self,
        name: str,
        address: str,
        certificate_name: str,
        failures: FailureLog,
        pacing: RefusalPacing,
        *,
        is_audited: bool,
    ) -> None:
        self.request_id = secrets.token_hex(16)
        self.token_name = ""  # set after the token is verified; empty if none is needed
        self.until_answered = ExitStack()  # until its response is sent, the call counts for --max-calls
        self._name = name
        self._address = address
        self._certificate_name = certificate_name
        self._failures = failures
        self._pacing = pacing
        self._is_audited = is_audited
        self._start_s = time.perf_counter()

    @property
    @abstractmethod
    def remaining_s(self) -> float | None:
        """Until the caller's own time limit; None: it sets none."""

    @property
    def client(self) -> str:
        """The token's name, else that of the client's certificate, else the peer's address without its port."""
        return client_of(self.token_name, self._certificate_name, self._address)

    async def failure_of(self, work: Coroutine[Any, Any, None]) -> status_pb2.Status | None:
        """Awaits `work` and logs the end of the call; returns its failure. CancelledError is raised again."""
        try:
            await work
        except asyncio.CancelledError:
            self._log_end(logging.DEBUG)
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets it
            failure, is_refusal = status_of(error, self.request_id), isinstance(error, _REFUSALS)
            self._log_failure(error, failure.message)
        else:
            self._log_end(logging.INFO if self._is_audited else logging.DEBUG)
            return None
        # Not in the `except` block: what is raised there refers to `error`, whose traceback keeps a bank in memory.
        if is_refusal:
            self.until_answered.close()  # refusals that wait must take no places from others
            await self._pacing.wait(self.client, self.remaining_s)
        return failure

    def _log_end(self, level: int) -> None:
        if _log.isEnabledFor(level):  # else its line is not made
            _log.log(level, "%s", self._line())

    def _log_failure(self, error: Exception, message: str) -> None:
        if isinstance(error, QueueFullError):  # admission logs how many
            _log.debug("%s: %s", self._line(), message)
        else:
            reason = error.reason if isinstance(error, PatchserveError) else "INTERNAL"
            self._failures.add(reason, self.client, f"{self._line()}: {message}")

    def _line(self) -> str:
        caller = self.token_name or self._certificate_name or "-"
        took_ms = (time.perf_counter() - self._start_s) * 1000
        return f"{self.request_id} {self._name} {caller} {took_ms:.0f} ms"
