"""The token file, and how an `authorization` is checked."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.access import Authenticator
from patchserve_server.access import tokens as module
from patchserve_server.access.tokens import TokenVerifier, new_token, parse_expiry, reloading_tokens
from patchserve_server.domain.callers import Caller, Scope
from patchserve_server.domain.errors import (
    ExpiredCredentialsError,
    InvalidCredentialsError,
    StartupError,
    UnauthenticatedError,
)

HASH = "sha256:" + "0" * 64
TOKEN, LINE = new_token("camera-3", [Scope.INFER])


def verifier(folder: Path, *lines: str) -> TokenVerifier:
    (folder / "tokens").write_text("\n".join(lines))
    return TokenVerifier(reloading_tokens(folder / "tokens"))


def test_a_token_in_the_file_identifies_its_caller(tmp_path: Path) -> None:
    other, other_line = new_token("loader", [Scope.MANAGE, Scope.INFER], datetime.now(UTC) + timedelta(days=1))
    tokens = verifier(tmp_path, "# a comment", LINE + "  # the belt's camera", "", other_line)
    assert tokens.verify(TOKEN) == Caller("camera-3", frozenset({Scope.INFER}))
    assert tokens.verify(other) == Caller("loader", frozenset(Scope))
    for wrong in ("", TOKEN[:-1], TOKEN + "A", TOKEN.swapcase(), LINE.split()[-1], "\ud800"):
        with pytest.raises(InvalidCredentialsError):
            tokens.verify(wrong)


def test_tokens_are_long_random_and_not_in_their_lines() -> None:
    made = [new_token("a", [Scope.INFER]) for _ in range(100)]
    assert len({token for token, _ in made}) == len({line for _, line in made}) == 100
    assert all(token.startswith("patchserve_") and len(token) == 11 + 43 for token, _ in made)
    assert not [line for token, line in made if token.removeprefix("patchserve_") in line]


def test_an_expired_token_has_an_error_of_its_own(tmp_path: Path) -> None:
    token, line = new_token("a", [Scope.INFER], datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(ExpiredCredentialsError):
        verifier(tmp_path, line).verify(token)


def test_a_token_is_compared_with_all_lines_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    class Counting:
        @staticmethod
        def compare_digest(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return hmac.compare_digest(one, other)

    tokens = verifier(tmp_path, LINE, *(new_token("a", [Scope.INFER])[1] for _ in range(9)))
    monkeypatch.setattr(module, "hmac", Counting)
    assert tokens.verify(TOKEN).name == "camera-3"
    assert len(compared) == 10, "the first line matches, and the others are compared too"
    assert {len(one) for pair in compared for one in pair} == {32}, "digests of one length, never tokens"


@pytest.mark.parametrize(
    "line",
    [
        "camera-3",
        "camera-3 infer",
        f"camera-3 {HASH}",
        f"camera-3 infer {HASH} expires=2030-01-01 more",
        f"camera-3 infer {HASH} until=2030-01-01",
        f"camera-3 infer {HASH} expires=",
        f"camera-3 infer {HASH} expires=soon",
        f"camera-3 infer,admin {HASH}",
        f"camera-3 infer,, {HASH}",
        f"../camera infer {HASH}",
        f"camera-3 infer {HASH[:-1]}",
        f"camera-3 infer {HASH.upper()}",
        pytest.param(f"camera-3 infer {TOKEN}", id="a token"),
        "\0\xff",
    ],
)
def test_a_malformed_line_is_reported_by_its_number_and_not_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(StartupError, match="line 2") as caught:
        verifier(tmp_path, LINE, line)
    assert TOKEN not in caught.value.message
    assert line not in caught.value.message


def test_a_file_has_at_least_one_token_and_no_hash_twice(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="line 3: the same hash as in line 1"):
        verifier(tmp_path, LINE, "", LINE)
    for lines in ([], ["# nobody", "  "]):
        with pytest.raises(StartupError, match="no token in the file"):
            verifier(tmp_path, *lines)


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_expiry("2030-12-31") == datetime(2030, 12, 31, tzinfo=UTC)
    assert parse_expiry("2030-12-31T12:00+02:00") == datetime(2030, 12, 31, 10, tzinfo=UTC)


def refuse(token: str) -> Caller:
    raise InvalidCredentialsError


def test_a_missing_authorization_has_a_reason_of_its_own() -> None:
    for nothing in ("", "  "):
        with pytest.raises(UnauthenticatedError) as caught:
            Authenticator(refuse, None).authenticate(nothing)
        assert caught.value.reason == "NO_CREDENTIALS"


def test_tokens_with_dots_are_verified_as_jwts_and_others_against_the_file() -> None:
    def named(name: str) -> Authenticator:
        caller = Caller(name, frozenset())
        return Authenticator(*((lambda _: caller) if name == one else None for one in ("file", "jwt")))

    assert named("file").authenticate("Bearer abc").name == "file"
    assert named("jwt").authenticate("bearer  a.b.c").name == "jwt"
    for authenticator, token in ((named("file"), "a.b.c"), (named("jwt"), "abc")):
        with pytest.raises(InvalidCredentialsError):
            authenticator.authenticate(f"Bearer {token}")


@given(st.text())
def test_no_error_message_contains_what_was_sent(authorization: str) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        Authenticator(refuse, refuse).authenticate(authorization)
    own = (UnauthenticatedError(), InvalidCredentialsError(), InvalidCredentialsError("x"))
    assert caught.value.message in {own[0].message, own[1].message} or "authorization: Bearer TOKEN" in str(
        caught.value
    )
