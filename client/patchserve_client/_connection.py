"""The connection to a server: address, TLS, token, deadlines, and the options of the gRPC channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import grpc

from patchserve_client._address import Address
from patchserve_client._reference_header import reference_header
from patchserve_client._service_config import service_config
from patchserve_client._tls import TlsConfig, credentials
from patchserve_client._tracing import trace_headers

DEFAULT_TIMEOUT_S = 30.0
DEFAULT_LOAD_TIMEOUT_S = 600.0
DEFAULT_MAX_MESSAGE_MIB = 64

TokenSource: TypeAlias = str | Callable[[], str] | None
"""A bearer token, or a function that returns the current one. It is called for every call, so it must be fast."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The checked settings of a client."""

    address: Address
    timeout_s: float
    load_timeout_s: float
    tls: TlsConfig | None
    token: TokenSource = field(repr=False)
    max_message_mib: int
    insecure_token: bool = False
    is_shared: bool = True  # with the other clients of this process that have the same settings

    def __post_init__(self) -> None:
        is_protected = self.tls is not None or self.address.is_on_this_machine or self.insecure_token
        if self.token is not None and not is_protected:
            message = (
                f"The token would be sent to {self.server} unencrypted. Use TLS, or set `insecure_token` if the "
                "network is protected in another way."
            )
            raise ValueError(message)
        if isinstance(self.token, str):
            checked_token(self.token)

    @property
    def server(self) -> str:
        """The address for gRPC and for messages."""
        return self.address.target

    def alone(self) -> Connection:
        """The same settings, for a connection of its own."""
        return replace(self, is_shared=False)

    def options(self) -> list[tuple[str, Any]]:
        max_message_bytes = self.max_message_mib * 1024 * 1024
        return [
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.service_config", service_config(is_spread=self.address.names_several)),
            # gRPC does not retry a request larger than this buffer. Its default, 256 KiB, excludes most images.
            ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
            # Without this gRPC uses the proxy of http_proxy even for ports of this machine.
            ("grpc.enable_http_proxy", int(not self.address.is_on_this_machine)),
            # During a call, a dead peer is detected within 80 s. Servers must allow one ping per minute.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # Reconnect to a restarted server soon.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            ("grpc.use_local_subchannel_pool", int(not self.is_shared)),
        ]

    def credentials(self) -> grpc.ChannelCredentials | None:
        """The TLS credentials; None: plain text.

        Raises:
            OSError: a file of `tls` cannot be read.
            ValueError: a file of `tls` is damaged.
        """
        return None if self.tls is None else credentials(self.tls)

    def metadata(self, reference_id: str = "") -> tuple[tuple[str, str], ...]:
        """The token, the reference that the call is about, if it is about one, and the trace that the caller is in.

        The token is a plain header: gRPC's call credentials cannot send it unencrypted, for example to a sidecar.
        """
        token = checked_token(self.token()) if callable(self.token) else self.token
        return ((("authorization", f"Bearer {token}"),) if token else ()) + (
            reference_header(reference_id) + trace_headers()
        )


def checked_token(token: str) -> str:
    """The same token.

    Raises:
        ValueError: a header cannot carry it. The message does not repeat it.
    """
    if any(not "!" <= char <= "~" for char in token):
        raise ValueError("The token has a blank, a newline or a character that is not ASCII in it.")
    return token
