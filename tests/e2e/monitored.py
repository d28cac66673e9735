"""A server of this process with everything on that metrics tell about: TLS, tokens, a store, HTTP, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from e2e.in_process import running_server
from fakes.certificates import Authority

from patchserve_client import Client, TlsConfig
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope


@dataclass(frozen=True, slots=True)
class Monitored:
    """Where it listens, and what its callers need."""

    address: str  # localhost:PORT
    metrics: str  # HOST:PORT of the metrics
    ca_file: Path
    token: str

    def client(self) -> Client:
        return Client(self.address, tls=TlsConfig(ca_file=self.ca_file), token=self.token)

    def scrape_access(self) -> dict[str, Any]:
        """What Prometheus needs to scrape it."""
        return {
            "scheme": "https",
            "tls_config": {"ca_file": str(self.ca_file)},
            "authorization": {"credentials": self.token},
        }

    def channel(self) -> grpc.Channel:
        """A channel of gRPC that sends the token."""
        encrypted = grpc.ssl_channel_credentials(self.ca_file.read_bytes())
        with_token = grpc.access_token_call_credentials(self.token)
        return grpc.secure_channel(self.address, grpc.composite_channel_credentials(encrypted, with_token))


@contextmanager
def monitored_server(folder: Path, **settings: Any) -> Iterator[Monitored]:
    """`running_server`. Its certificate is valid for a day, its token too."""
    authority = Authority()
    ca_file, (cert, key) = folder / "ca.pem", authority.write(folder, "server")
    ca_file.write_bytes(authority.certificate)
    tokens = folder / "tokens"
    token, line = new_token("line", {Scope.INFER, Scope.MANAGE}, datetime.now(UTC) + timedelta(days=1))
    tokens.write_text(f"{line}\n")
    files: dict[str, Any] = {"tls_cert": cert, "tls_key": key, "auth_tokens": tokens, "store": folder / "store"}
    with running_server(metrics_port=0, **files, **settings) as server:
        yield Monitored(server.address, urlsplit(server.metrics_url).netloc, ca_file, token)
