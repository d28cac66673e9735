"""A call: who makes it, what it may use, its line in the log and its status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
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


class Context(Protocol):
    """What a call needs of gRPC's context. That of a gRPC server has it; who relays calls brings another."""

    def peer(self) -> str:
        """The address of the caller, with its port."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None: it has none."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What the caller sent beside its messages."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS knows of the caller."""

    async def read(self) -> Any:  # noqa: ANN401 - gRPC's EOF is no bytes
        """The bytes of the next message, or `grpc.aio.EOF`."""

    async def write(self, message: Any) -> None:  # noqa: ANN401 - a message of any method, or its bytes
        """Sends a message, as soon as the caller takes it."""

    async def send_initial_metadata(self, initial_metadata: tuple[()]) -> None:
        """Sends what comes before the first message."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> None:
        """Ends the call with an error."""


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
