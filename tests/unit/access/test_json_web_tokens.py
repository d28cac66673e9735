"""JWTs: which are accepted, and the known attacks that must be refused (RFC 8725)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fakes.issuer import Issuer
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.access.json_web_tokens import LEEWAY_S, JwtVerifier, reloading_keys
from patchserve_server.domain.callers import Caller, Scope
from patchserve_server.domain.errors import (
    ExpiredCredentialsError,
    InvalidCredentialsError,
    StartupError,
    UnauthenticatedError,
)

ISSUER = Issuer()
FUTURE = datetime.now(UTC) + timedelta(days=1)


def verifier_of(folder: Path, jwks: str) -> JwtVerifier:
    (folder / "jwks.json").write_text(jwks)
    return JwtVerifier(reloading_keys(folder / "jwks.json"), issuer=Issuer.name, audience=Issuer.audience)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> JwtVerifier:
    return verifier_of(tmp_path_factory.mktemp("jwks"), ISSUER.jwks())


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forge(header: dict[str, object], claims: dict[str, object], secret: bytes) -> str:
    """Sign like an attacker: the library itself refuses a public key as an HMAC secret."""
    signed = f"{part(header)}.{part({**claims, 'exp': int(FUTURE.timestamp())})}"
    signature = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), hashlib.sha256)).rstrip(b"=").decode()
    return f"{signed}.{signature if secret else ''}"


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "infer"}, {Scope.INFER}),
        ({"scope": "openid infer manage profile"}, {Scope.INFER, Scope.MANAGE}),
        ({"scope": "", "scp": "manage"}, {Scope.MANAGE}),
        ({"scope": "", "scp": ["infer", "manage"]}, {Scope.INFER, Scope.MANAGE}),
        ({"scope": "INFER inference"}, set()),
        ({"scope": 7, "scp": {"infer": True}}, set()),
    ],
)
def test_scopes_come_from_scope_or_scp(verifier: JwtVerifier, claims: dict[str, Any], scopes: set[Scope]) -> None:
    assert verifier.verify(ISSUER.sign(ISSUER.claims(**claims))) == Caller("robot", frozenset(scopes))


def test_the_name_is_safe_to_log(verifier: JwtVerifier) -> None:
    caller = verifier.verify(ISSUER.sign(ISSUER.claims(sub="rob\not\x1b[2J" + "x" * 1000)))
    assert caller.name.isascii()
    assert caller.name.isprintable()
    assert len(caller.name) == 64
    assert verifier.verify(ISSUER.sign(ISSUER.claims(sub=""))).name == "unnamed"


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"iss": "https://elsewhere.test"}, "another issuer"),
        ({"aud": "elsewhere"}, "another audience"),
        ({"aud": ["elsewhere", "nowhere"]}, "another audience"),
        ({"nbf": FUTURE}, "not valid yet"),
        ({"iat": FUTURE}, "not valid yet"),
        ({"exp": None}, "needs the claims"),
        ({"iss": None}, "needs the claims"),
        ({"aud": None}, "needs the claims"),
        ({"exp": "soon"}, "not a valid JWT"),
    ],
)
def test_wrong_claims_are_refused(verifier: JwtVerifier, claims: dict[str, Any], says: str) -> None:
    present = {name: value for name, value in ISSUER.claims(**claims).items() if value is not None}
    with pytest.raises(InvalidCredentialsError, match=says):
        verifier.verify(ISSUER.sign(present))


def test_an_expired_token_is_accepted_within_the_leeway_only(verifier: JwtVerifier) -> None:
    assert verifier.verify(ISSUER.sign(ISSUER.claims(expires_s=-LEEWAY_S / 2))).name == "robot"
    with pytest.raises(ExpiredCredentialsError):
        verifier.verify(ISSUER.sign(ISSUER.claims(expires_s=-LEEWAY_S - 1)))


def test_forged_signatures_are_refused(verifier: JwtVerifier) -> None:
    claims = ISSUER.claims()
    claims.pop("exp")
    header: dict[str, object] = {"alg": "HS256", "typ": "JWT", "kid": ISSUER.kid}
    modulus = base64.urlsafe_b64decode(str(ISSUER.jwk()["n"]) + "==")
    token = ISSUER.sign(ISSUER.claims())
    body = token.rpartition(".")[0]
    other_body = ISSUER.sign(ISSUER.claims(scope="infer", sub="other")).rpartition(".")[0]
    forged = {
        "none": forge({**header, "alg": "none"}, claims, b""),
        "None": forge({**header, "alg": "None"}, claims, b""),
        "the public key as a secret": forge(header, claims, ISSUER.public_pem),
        "the modulus as a secret": forge(header, claims, modulus),
        "another key": Issuer().sign(ISSUER.claims()),
        "a key in the header": Issuer().sign(ISSUER.claims(), jwk=Issuer().jwk()),  # type: ignore[arg-type]
        "a key at an address": Issuer().sign(ISSUER.claims(), jku="https://attacker.test/jwks.json"),
        "another algorithm of the same key": jwt.encode(
            ISSUER.claims(), ISSUER.key, "PS256", headers={"kid": ISSUER.kid}
        ),
        "no signature": f"{body}.",
        "the signature of another": f"{other_body}.{token.rpartition('.')[2]}",
        "two parts": body,
        "an unknown critical header": ISSUER.sign(ISSUER.claims(), crit=["exp"]),  # type: ignore[arg-type]
    }
    accepted = {}
    for what, forgery in forged.items():
        try:
            accepted[what] = verifier.verify(forgery)
        except InvalidCredentialsError as error:
            assert forgery not in error.message  # noqa: PT017 - each is one of many
    assert not accepted
    assert verifier.verify(token)


@pytest.mark.parametrize("kid", ["second", "", "../first", "first\0"])
def test_an_unknown_key_id_is_refused(verifier: JwtVerifier, kid: str) -> None:
    with pytest.raises(InvalidCredentialsError, match="kid"):
        verifier.verify(ISSUER.sign(ISSUER.claims(), kid=kid))
    with pytest.raises(InvalidCredentialsError, match="kid"):
        verifier.verify(jwt.encode(ISSUER.claims(), ISSUER.key, "RS256"))


@given(st.text() | st.lists(st.binary(max_size=40), min_size=3, max_size=3))
def test_garbage_is_refused(verifier: JwtVerifier, garbage: str | list[bytes]) -> None:
    if not isinstance(garbage, str):
        garbage = ".".join(base64.urlsafe_b64encode(one).decode().rstrip("=") for one in garbage)
    with pytest.raises(UnauthenticatedError):
        verifier.verify(garbage)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x"]),
        st.sampled_from(["RS256", "first", "none"]) | st.recursive(st.none() | st.booleans() | st.floats(), st.lists),
    )
)
def test_a_malformed_header_is_refused(verifier: JwtVerifier, header: dict[str, object]) -> None:
    with pytest.raises(UnauthenticatedError):
        verifier.verify(forge(header, {}, b"secret"))


def test_a_deeply_nested_header_is_refused(verifier: JwtVerifier) -> None:
    deep = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 3000 + b"]" * 3000 + b"}").decode().rstrip("=")
    with pytest.raises(UnauthenticatedError):
        verifier.verify(f"{deep}.{part({})}.AAAA")


def test_elliptic_curve_and_edwards_keys_are_accepted(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    kinds: dict[str, Any] = {"ES256": jwt.algorithms.ECAlgorithm, "EdDSA": jwt.algorithms.OKPAlgorithm}
    jwks = [{**json.loads(kinds[name].to_jwk(key.public_key())), "kid": name} for name, key in keys.items()]
    verifier = verifier_of(tmp_path, json.dumps({"keys": jwks}))
    for name, key in keys.items():
        assert verifier.verify(jwt.encode(ISSUER.claims(), key, name, headers={"kid": name})).name == "robot"


@pytest.mark.parametrize(
    ("jwks", "says"),
    [
        ("", "not a set of public keys"),
        ("[]", "not a set of public keys"),
        ('{"keys": []}', "not a set of public keys"),
        ('{"keys": 7}', "not a set of public keys"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "first", "alg": "HS256"}]}', "no key with a kid for one of"),
        (json.dumps({"keys": [{**ISSUER.jwk(), "kid": None}]}), "no key with a kid"),
        (json.dumps({"keys": [{**ISSUER.jwk(), "use": "enc"}]}), "no key with a kid"),
    ],
)
def test_a_file_without_a_usable_key_is_refused(tmp_path: Path, jwks: str, says: str) -> None:
    with pytest.raises(StartupError, match=says):
        verifier_of(tmp_path, jwks)


def test_private_keys_are_refused_and_not_shown(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True)
    with pytest.raises(StartupError, match="private keys") as caught:
        verifier_of(tmp_path, json.dumps({"keys": [{**private, "kid": "first"}]}))
    assert private["d"] not in str(caught.value)


def test_keys_can_be_rotated(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(ISSUER.jwks())
    keys = reloading_keys(tmp_path / "jwks.json")
    verifier = JwtVerifier(keys, issuer=Issuer.name, audience=Issuer.audience)
    successor = Issuer("second")
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [ISSUER.jwk(), successor.jwk()]}))
    keys.reload()
    assert verifier.verify(successor.sign(successor.claims()))
    assert verifier.verify(ISSUER.sign(ISSUER.claims()))
    (tmp_path / "jwks.json").write_text(successor.jwks())
    keys.reload()
    with pytest.raises(InvalidCredentialsError):
        verifier.verify(ISSUER.sign(ISSUER.claims()))
