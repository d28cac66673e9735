"""The part that both clients share: the connection, the stubs, and the start of a call."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from grpc_health.v1 import health_pb2_grpc

from patchserve.v1 import service_pb2_grpc
from patchserve_client import _connection
from patchserve_client._address import DEFAULT_SERVER, parsed
from patchserve_client._attempts import UnaryAttempt
from patchserve_client._calls import Call
from patchserve_client._connection import Connection, TokenSource
from patchserve_client._own_changes import OwnChanges
from patchserve_client._tls import TlsConfig


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """A gRPC channel and its stubs. Those of grpc and of grpc.aio have no common type."""

    channel: Any
    service: Any
    health: Any


class BaseClient:
    """Opens the channel. `Client` explains the arguments."""

    _grpc: ModuleType  # grpc or grpc.aio

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        timeout_s: float = _connection.DEFAULT_TIMEOUT_S,
        load_timeout_s: float = _connection.DEFAULT_LOAD_TIMEOUT_S,
        tls: TlsConfig | None = None,
        token: TokenSource = None,
        insecure_token: bool = False,
        max_message_mib: int = _connection.DEFAULT_MAX_MESSAGE_MIB,
    ) -> None:
        self._connection = Connection(
            parsed(server), timeout_s, load_timeout_s, tls, token, max_message_mib, insecure_token
        )
        self._credentials = self._connection.credentials()
        self._own = OwnChanges()
        self._prepare()

    def _prepare(self) -> None:
        """The end of the constructor of each kind of client."""

    @property
    def _opened(self) -> OpenChannel:
        """The channel of this client."""
        raise NotImplementedError

    def _open(self) -> OpenChannel:
        server, options = self._connection.server, self._connection.options()
        if self._credentials is None:
            channel = self._grpc.insecure_channel(server, options)
        else:
            channel = self._grpc.secure_channel(server, self._credentials, options)
        return OpenChannel(channel, service_pb2_grpc.PatchCoreServiceStub(channel), health_pb2_grpc.HealthStub(channel))

    def _attempt(self, call: Call[Any], timeout_s: float | None) -> UnaryAttempt:
        return UnaryAttempt(call, self._own, self._connection.timeout_s if timeout_s is None else timeout_s)

    def _start(self, method: str, attempt: UnaryAttempt) -> Any:  # noqa: ANN401 - each call has its own response
        """Make a unary call. grpc returns the response; grpc.aio returns a call to await."""
        stub = self._opened.health if method == "Check" else self._opened.service
        metadata = self._connection.metadata(attempt.reference_id)
        return getattr(stub, method)(attempt.request, timeout=attempt.remaining_s, metadata=metadata)

    def _load_deadline_s(self, timeout_s: float | None) -> float:
        return self._connection.load_timeout_s if timeout_s is None else timeout_s

    def _silence_s(self, timeout_s: float | None) -> float:
        return self._connection.timeout_s if timeout_s is None else timeout_s
