"""Opens the certificates and tokens that the settings name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchserve_server.access.authenticator import Authenticator, Verify
from patchserve_server.access.reloading import Reloading
from patchserve_server.access.tokens import Entries, TokenVerifier, reloading_tokens
from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import StartupError


@dataclass(frozen=True, slots=True)
class Credentials:
    """The server's certificate, and how it authenticates its callers."""

    identity: Reloading[TlsIdentity] | None  # None: no TLS
    authenticator: Authenticator | None  # None: calls need no token
    reloading: tuple[Reloading[Any], ...]  # everything that is read from files
    tokens: Reloading[Entries] | None = None  # of the token file


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
    """Read the files that these settings name.

    Raises:
        StartupError: a file cannot be read or used, or a setting that another one needs is missing.
    """
    identity = _open_identity(tls_cert, tls_key, tls_client_ca)
    verify_jwt, keys = _open_jwts(jwt_issuer, jwt_audience, jwt_jwks)
    tokens = reloading_tokens(auth_tokens) if auth_tokens else None
    verify_token = TokenVerifier(tokens).verify if tokens else None
    authenticator = Authenticator(verify_token, verify_jwt) if verify_token or verify_jwt else None
    return Credentials(identity, authenticator, tuple(value for value in (identity, keys, tokens) if value), tokens)


# cryptography and PyJWT take time to import. A server without TLS and JWTs does not import them.


def _open_identity(cert: Path | None, key: Path | None, client_ca: Path | None) -> Reloading[TlsIdentity] | None:
    if cert and key:
        from patchserve_server.access.certificates import reloading_identity  # noqa: PLC0415

        return reloading_identity(cert, key, client_ca)
    if cert or key or client_ca:
        raise StartupError("TLS needs both --tls-cert and --tls-key; --tls-client-ca is used together with them.")
    return None


def _open_jwts(
    issuer: str | None, audience: str | None, jwks: Path | None
) -> tuple[Verify, Reloading[Any]] | tuple[None, None]:
    if issuer and audience and jwks:
        from patchserve_server.access.json_web_tokens import JwtVerifier, reloading_keys  # noqa: PLC0415

        keys = reloading_keys(jwks)
        return JwtVerifier(keys, issuer=issuer, audience=audience).verify, keys
    if issuer or audience or jwks:
        raise StartupError("JWTs need all of --jwt-issuer, --jwt-audience and --jwt-jwks.")
    return None, None
