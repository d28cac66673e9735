"""JWTs of an identity provider, verified with its public keys (RFC 7519, RFC 8725). No keys are downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import jwt

from patchserve_server.access.reloading import Reloading
from patchserve_server.domain.callers import Caller, Scope, printable_name
from patchserve_server.domain.errors import ExpiredCredentialsError, InvalidCredentialsError, StartupError

# Asymmetric signatures only: with HS256 the public key would be the secret.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S: Final = 30.0

Keys = dict[str, jwt.PyJWK]


class JwtVerifier:
    """Accepts tokens that `issuer` signed for `audience`. They need an expiry; scopes are in `scope` or `scp`."""

    def __init__(self, keys: Reloading[Keys], *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    def verify(self, token: str) -> Caller:
        """The caller that the token belongs to.

        Raises:
            InvalidCredentialsError: it has another issuer or audience, is not valid yet, or is no JWT.
            ExpiredCredentialsError: it has expired.
        """
        try:
            key = self._keys.value.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                raise InvalidCredentialsError("The token was signed with an unknown key (kid).")
            claims = jwt.decode(
                token,
                key,  # the token must use the algorithm of the key
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise ExpiredCredentialsError from error
        except jwt.PyJWTError as error:
            raise InvalidCredentialsError(_explain(error)) from error
        name = str(claims.get("sub") or claims.get("client_id") or "unnamed")
        return Caller(printable_name(name), _scopes(claims))


def reloading_keys(path: Path) -> Reloading[Keys]:
    """Key id -> public key, from this JWKS file (RFC 7517).

    Raises:
        StartupError: the file cannot be read, is not a JWKS, or has no key that can verify a signature.
    """
    return Reloading({"--jwt-jwks": path}, _parse_keys)


def _parse_keys(content: bytes) -> Keys:
    try:
        jwks = jwt.PyJWKSet.from_dict(json.loads(content)).keys
    except (jwt.PyJWTError, ValueError, AttributeError) as error:
        raise StartupError("--jwt-jwks: the file is not a set of public keys (JWKS).") from error
    keys = {
        key.key_id: key
        for key in jwks
        if key.key_id and key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")
    }
    if not keys:
        raise StartupError(f"--jwt-jwks: the file has no key with a kid for one of {', '.join(ALGORITHMS)}.")
    if any(hasattr(key.key, "private_bytes") for key in keys.values()):
        raise StartupError("--jwt-jwks: the file contains private keys. The server needs the public keys only.")
    return keys


def _explain(error: jwt.PyJWTError) -> str:
    # Claims are checked after the signature, so only a holder of a token from the issuer sees these messages.
    match error:
        case jwt.ImmatureSignatureError():
            return "The token is not valid yet."
        case jwt.InvalidAudienceError():
            return "The token is for another audience."
        case jwt.InvalidIssuerError():
            return "The token is from another issuer."
        case jwt.MissingRequiredClaimError():
            return "The token needs the claims exp, iss and aud."
        case _:
            return "The token is not a valid JWT."


def _scopes(claims: dict[str, Any]) -> frozenset[Scope]:
    named: set[str] = set()
    for claim in ("scope", "scp"):
        value = claims.get(claim, "")
        named.update(value.split() if isinstance(value, str) else map(str, value) if isinstance(value, list) else ())
    return frozenset(scope for scope in Scope if scope in named)
