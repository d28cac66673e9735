"""A server with TLS, client certificates, tokens and a fake detector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from e2e.in_process import in_process_server
from fakes.certificates import Authority

from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope


@dataclass(frozen=True)
class Guarded:
    """`flags` are a client's for TLS; `tokens` by what cases call them, and "both" for one with every scope."""

    address: str
    flags: tuple[str, ...]
    tokens: dict[str, str]


@contextmanager
def guarded(folder: Path) -> Iterator[Guarded]:
    """Write certificates and tokens into an existing folder, and serve with them."""
    tokens, lines = {"none": ""}, []
    granted: dict[str, list[Scope]] = {scope.value: [scope] for scope in Scope} | {"both": list(Scope)}
    for name, scopes in granted.items():
        tokens[name], line = new_token("robot", scopes)
        lines.append(line)
    tokens["expired"], line = new_token("robot", list(Scope), datetime.now(UTC) - timedelta(seconds=1))
    tokens["wrong"], _ = new_token("robot", list(Scope))
    (folder / "tokens").write_text("\n".join([*lines, line, ""]))
    authority, ca = Authority(), folder / "ca.pem"
    ca.write_bytes(authority.certificate)
    (cert, key), (own_cert, own_key) = authority.write(folder, "server"), authority.write(folder, "client")
    with in_process_server(auth_tokens=folder / "tokens", tls_cert=cert, tls_key=key, tls_client_ca=ca) as address:
        yield Guarded(address, ("--ca", str(ca), "--cert", str(own_cert), "--key", str(own_key)), tokens)
