"""An issuer of JWTs and its JWKS."""

from __future__ import annotations

import datetime as dt
import json

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Issuer:
    """An identity provider: signs JWTs, publishes its keys."""

    name = "https://issuer.test"
    audience = "patchserve"

    def __init__(self, kid: str = "first") -> None:
        self.kid = kid
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def jwk(self) -> dict[str, object]:
        return {
            **jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True),
            "kid": self.kid,
            "use": "sig",
        }

    def jwks(self) -> str:
        return json.dumps({"keys": [self.jwk()]})

    def claims(self, scope: str = "infer manage", expires_s: float = 600.0, **others: object) -> dict[str, object]:
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=expires_s)
        return {"iss": self.name, "aud": self.audience, "sub": "robot", "exp": expires, "scope": scope, **others}

    def sign(self, claims: dict[str, object], **header: str) -> str:
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.kid, **header})
