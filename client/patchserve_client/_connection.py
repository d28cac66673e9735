"""The way to a server: address, TLS, token, deadlines, and the settings of a gRPC channel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc

DEFAULT_SERVER = "localhost:50051"
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_LOAD_TIMEOUT_S = 600.0
DEFAULT_MAX_MESSAGE_MIB = 64

# Asking twice is the same as asking once. LoadReference is here because what must not be sent twice, an APPEND to
# whatever is there, goes by LoadReferenceStream (see _calls.prepare_load). DeleteReference is not: the second answer
# would be NOT_FOUND.
_RETRIED_METHODS = ("GetReference", "GetServerInfo", "Infer", "ListLoads", "ListReferences", "LoadReference")
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "patchserve.v1.PatchCoreService", "method": method} for method in _RETRIED_METHODS],
            "retryPolicy": _RETRY_POLICY,
        }
    ]
}

TokenSource: TypeAlias = str | Callable[[], str] | None
"""A bearer token, or what gives the present one: called for every call, so it must be quick."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Encryption of a connection. Every path is to a PEM file.

    `ca_file` is who may sign the server's certificate; None: the well-known authorities. `cert_file` and `key_file` are
    the client's own, for a server that asks for one (mTLS).
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or neither.")


@dataclass(frozen=True, slots=True)
class Connection:
    """What both clients are made of."""

    server: str
    timeout_s: float
    load_timeout_s: float
    tls: TlsConfig | None
    token: TokenSource = field(repr=False)
    max_message_mib: int
    insecure_token: bool = False

    def __post_init__(self) -> None:
        if not self.server or self.server.startswith(("http://", "https://")):
            raise ValueError(f"A server is named HOST:PORT, such as {DEFAULT_SERVER}, not {self.server!r}.")
        if self.token is not None and self.tls is None and not (self._on_this_machine or self.insecure_token):
            message = (
                f"The token would travel to {self.server} unencrypted: use TLS, or insecure_token (--insecure-token) "
                "where something else protects the way."
            )
            raise ValueError(message)

    @property
    def _on_this_machine(self) -> bool:
        return self.server.rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]")

    def options(self) -> list[tuple[str, Any]]:
        max_message_bytes = self.max_message_mib * 1024 * 1024
        return [
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            # A request larger than this buffer (256 KiB as gRPC ships) is never retried: an image would not be.
            ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
            # gRPC would ask the proxy of http_proxy for this machine's own ports too.
            ("grpc.enable_http_proxy", int(not self._on_this_machine)),
            # A dead peer is noticed within 80 s while a call is under way. Servers must allow a ping a minute.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # A server that restarts is found again soon.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]

    def credentials(self) -> grpc.ChannelCredentials | None:
        """None: plain text.

        Raises:
            OSError: a file of `tls` cannot be read.
        """
        if self.tls is None:
            return None
        files = (self.tls.ca_file, self.tls.key_file, self.tls.cert_file)
        ca, key, cert = (None if file is None else Path(file).read_bytes() for file in files)
        return grpc.ssl_channel_credentials(ca, key, cert)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The token as a plain header, which gRPC's own call credentials would refuse to send to a sidecar for TLS."""
        token = self.token() if callable(self.token) else self.token
        return (("authorization", f"Bearer {token}"),) if token else ()
