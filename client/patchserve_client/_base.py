"""The part that both clients share: the connection, the stubs, and the start of a call."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from grpc_health.v1 import health_pb2_grpc

from patchserve.v1 import service_pb2_grpc
from patchserve_client import _connection
from patchserve_client._calls import Call
from patchserve_client._connection import Connection, TlsConfig, TokenSource


class BaseClient:
    """Opens the channel. `Client` explains the arguments."""

    _grpc: ModuleType  # grpc or grpc.aio

    def __init__(
        self,
        server: str = _connection.DEFAULT_SERVER,
        *,
        timeout_s: float = _connection.DEFAULT_TIMEOUT_S,
        load_timeout_s: float = _connection.DEFAULT_LOAD_TIMEOUT_S,
        tls: TlsConfig | None = None,
        token: TokenSource = None,
        insecure_token: bool = False,
        max_message_mib: int = _connection.DEFAULT_MAX_MESSAGE_MIB,
    ) -> None:
        self._connection = Connection(server, timeout_s, load_timeout_s, tls, token, max_message_mib, insecure_token)
        credentials, options = self._connection.credentials(), self._connection.options()
        if credentials is None:
            self._channel = self._grpc.insecure_channel(server, options)
        else:
            self._channel = self._grpc.secure_channel(server, credentials, options)
        self._stub = service_pb2_grpc.PatchCoreServiceStub(self._channel)
        self._health_stub = health_pb2_grpc.HealthStub(self._channel)

    def _start(self, call: Call[Any], timeout_s: float | None) -> Any:  # noqa: ANN401 - each call has its own response
        """Make a unary call. grpc returns the response; grpc.aio returns a call to await."""
        stub = self._health_stub if call.method == "Check" else self._stub
        method = getattr(stub, call.method)
        deadline_s = self._connection.timeout_s if timeout_s is None else timeout_s
        return method(call.request, timeout=deadline_s, metadata=self._connection.metadata())

    def _load_deadline_s(self, timeout_s: float | None) -> float:
        return self._connection.load_timeout_s if timeout_s is None else timeout_s
