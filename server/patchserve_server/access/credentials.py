"""From settings to certificates and tokens in use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchserve_server.access.authenticator import Authenticator
from patchserve_server.access.reloading import Reloading
from patchserve_server.access.tokens import TokenVerifier, reloading_tokens
from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import StartupError


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the server shows and whom it lets in. None: no TLS; no token is asked for."""

    identity: Reloading[TlsIdentity] | None
    authenticator: Authenticator | None
    watched: tuple[Reloading[Any], ...]  # every file that this comes from


def open_credentials(
    *,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    auth_tokens: Path | None,
    jwt_issuer: str | None,
    jwt_audience: str | None,
    jwt_jwks: Path | None,
) -> Credentials:
    """Reads what these settings name.

    Raises:
        StartupError: a file cannot be read or used, or one of several that go together is missing.
    """
    # Imported where they are needed: a server without TLS and JWTs starts without cryptography, which takes its time.
    identity = keys = jwts = None
    if tls_cert and tls_key:
        from patchserve_server.access.certificates import reloading_identity  # noqa: PLC0415

        identity = reloading_identity(tls_cert, tls_key, tls_client_ca)
    elif tls_cert or tls_key or tls_client_ca:
        raise StartupError("TLS needs both --tls-cert and --tls-key; --tls-client-ca goes with them.")
    if jwt_issuer and jwt_audience and jwt_jwks:
        from patchserve_server.access.json_web_tokens import JwtVerifier, reloading_keys  # noqa: PLC0415

        keys = reloading_keys(jwt_jwks)
        jwts = JwtVerifier(keys, issuer=jwt_issuer, audience=jwt_audience).caller
    elif jwt_issuer or jwt_audience or jwt_jwks:
        raise StartupError("JWTs need all of --jwt-issuer, --jwt-audience and --jwt-jwks.")
    tokens = reloading_tokens(auth_tokens) if auth_tokens else None
    in_file = TokenVerifier(tokens).caller if tokens else None
    authenticator = Authenticator(in_file, jwts) if in_file or jwts else None
    return Credentials(identity, authenticator, tuple(one for one in (identity, keys, tokens) if one))
