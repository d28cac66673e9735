"""JWTs of an identity provider, checked with its public keys (RFC 7519, RFC 8725). Nothing is ever fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jwt

from patchserve_server.access.reloading import Reloading
from patchserve_server.domain.callers import Caller, Scope
from patchserve_server.domain.errors import ExpiredCredentialsError, InvalidCredentialsError, StartupError

# Signatures only: with HS256 the public key would be the secret.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S: Final = 30.0
_MAX_NAME = 64

Keys = dict[str, jwt.PyJWK]


class JwtVerifier:
    """Takes what `issuer` signed for `audience`. `exp` is a must; scopes are those in `scope` or `scp`."""

    def __init__(self, keys: Reloading[Keys], *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    def caller(self, token: str) -> Caller:
        """Whose token it is.

        Raises:
            InvalidCredentialsError: it is not from the issuer, not for us, not yet valid, or no JWT at all.
            ExpiredCredentialsError: its time is over.
        """
        try:
            key = self._keys.value.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                raise InvalidCredentialsError("The token's key id (kid) is none that this server knows.")
            claims = jwt.decode(
                token,
                key,  # has its own algorithm, which must be the token's
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise ExpiredCredentialsError from error
        except jwt.PyJWTError as error:
            raise InvalidCredentialsError(_explained(error)) from error
        name = str(claims.get("sub") or claims.get("client_id") or "unnamed")
        return Caller(ascii(name)[1:-1][:_MAX_NAME], _scopes(claims))


def reloading_keys(path: Path) -> Reloading[Keys]:
    """The public keys in this JWKS file (RFC 7517), by key id, renewed as it is.

    Raises:
        StartupError: it cannot be read, is no JWKS, or has no key to check a signature with.
    """
    return Reloading({"--jwt-jwks": path}, _keys)


def _keys(content: bytes) -> Keys:
    try:
        found = jwt.PyJWKSet.from_dict(json.loads(content)).keys
    except (jwt.PyJWTError, ValueError, AttributeError) as error:
        raise StartupError("--jwt-jwks: no set of public keys (JWKS).") from error
    keys = {
        key.key_id: key
        for key in found
        if key.key_id and key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")
    }
    if not keys:
        raise StartupError(f"--jwt-jwks: no key with a kid that signs with one of {', '.join(ALGORITHMS)}.")
    if any(hasattr(key.key, "private_bytes") for key in keys.values()):
        raise StartupError("--jwt-jwks: there are private keys in the file. The server needs the public ones only.")
    return keys


def _explained(error: jwt.PyJWTError) -> str:
    # Claims are looked at after the signature: whoever is told about them has a token of the issuer.
    match error:
        case jwt.ImmatureSignatureError():
            return "The token is not valid yet."
        case jwt.InvalidAudienceError():
            return "The token is for another audience."
        case jwt.InvalidIssuerError():
            return "The token is of another issuer."
        case jwt.MissingRequiredClaimError():
            return "The token lacks one of the claims exp, iss and aud."
        case _:
            return "The token is no JWT that this server takes."


def _scopes(claims: dict[str, Any]) -> frozenset[Scope]:
    named: set[str] = set()
    for claim in ("scope", "scp"):
        value = claims.get(claim, "")
        named.update(value.split() if isinstance(value, str) else map(str, value) if isinstance(value, list) else ())
    return frozenset(scope for scope in Scope if scope in named)
