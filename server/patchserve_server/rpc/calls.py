"""A call: who makes it, what it may use, its line in the log and its status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from google.rpc import status_pb2
from grpc import aio
from grpc_status import rpc_status

from patchserve_server.contract.calls import AdmittedCall
from patchserve_server.contract.incoming import IncomingCallBase
from patchserve_server.contract.methods import Method
from patchserve_server.domain.call_events import Face
from patchserve_server.domain.callers import printable_name
from patchserve_server.rpc.pushback import pushback
from patchserve_server.rpc.reset import reset_current_call
from patchserve_server.serving.entrance import Entrance

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
        entrance: what all faces share.
        status_timeout_s: how long the status of a failed call may wait for a caller that does not read.
        has_tls: whether callers may have certificates.
    """

    entrance: Entrance
    status_timeout_s: float
    has_tls: bool


class IncomingCall(IncomingCallBase):
    """A call over gRPC before it is admitted; `full_name` is that of its method, such as `/SERVICE/Infer`."""

    def __init__(
        self, full_name: str, context: Context, endings: Endings, method: Method, *, is_stream: bool = False
    ) -> None:
        _, service, method_name = full_name.split("/")
        super().__init__(
            endings.entrance,
            face=Face.GRPC,
            service=service,
            method_name=method_name,
            address=context.peer().rpartition(":")[0],  # now: later, gRPC may not know it any more
            certificate_name=_certificate_name(context) if endings.has_tls else "",
            is_audited=method.is_audited,
            is_probe=method.always_answered,
            is_stream=is_stream,
        )
        self.context = context
        self._status_timeout_s = endings.status_timeout_s

    @property
    def remaining_s(self) -> float | None:
        return self.context.time_remaining()

    def header(self, name: str) -> str:
        for key, value in self.context.invocation_metadata() or ():
            if key == name:
                return value if isinstance(value, str) else ""
        return ""

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Awaits `work`, logs the end of the call and sends an error as a status. CancelledError is raised again."""
        with self.until_answered:  # if the caller does not read, its status waits
            if (failure := await self.failure_of(work)) is not None:
                await self._send(failure)

    async def _send(self, failure: status_pb2.Status) -> None:
        try:
            async with asyncio.timeout(self._status_timeout_s):
                sent = rpc_status.to_status(failure)
                await self.context.abort(sent.code, sent.details, (*sent.trailing_metadata, *pushback(failure)))
        except TimeoutError:
            _log.debug("The caller has not read its status, so the call is reset")
            reset_current_call()
        except aio.AbortError as sent:
            # gRPC keeps this exception with the call, and raises it again by itself. Its traceback would refer to this
            # frame, and so to the call: a cycle.
            sent.__traceback__ = None
        except aio.InternalError:
            _log.debug("The caller has left, or its deadline has passed")


def _certificate_name(context: Context) -> str:
    """The name in the client's certificate as printable ASCII; empty without a certificate."""
    names = context.auth_context().get("x509_common_name", [])
    return printable_name(b"".join(names).decode(errors="replace"))
