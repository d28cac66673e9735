"""The session of the page: a token in a cookie, and who may use it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from e2e.in_process import running_server
from fakes.issuer import Issuer
from fakes.raw_http import RawConnection

from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from patchserve_server.web.session_routes import MAX_TOKEN_CHARACTERS

TIMEOUT_S = 60


class Tokens:
    """A token file with a token for each case."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tokens"
        self.robot, robot = new_token("robot", [Scope.INFER])
        self.expired, expired = new_token("old", list(Scope), datetime.now(UTC) - timedelta(seconds=1))
        self.wrong, _ = new_token("robot", list(Scope))
        self.file.write_text(f"{robot}\n{expired}\n")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def url(tokens: Tokens) -> Iterator[str]:
    """A server that needs a token."""
    with running_server(auth_tokens=tokens.file) as server:
        yield server.http_url


def sign_in(url: str, token: object, **headers: str) -> requests.Response:
    return requests.post(f"{url}/session", json={"token": token}, headers=headers, timeout=TIMEOUT_S)


def reason_of(answer: requests.Response) -> str:
    return next(str(detail["reason"]) for detail in answer.json()["details"] if "reason" in detail)


def test_a_person_signs_in_and_out(url: str, tokens: Tokens) -> None:
    with requests.Session() as browser:
        before = browser.get(f"{url}/session", timeout=TIMEOUT_S).json()
        assert before == {"token_needed": True, "signed_in": False, "problem": "", "scopes": []}
        answer = browser.post(f"{url}/session", json={"token": f" {tokens.robot}\n"}, timeout=TIMEOUT_S)
        signed_in = {"token_needed": True, "signed_in": True, "name": "robot", "scopes": ["infer"]}
        assert (answer.status_code, answer.json()) == (200, signed_in)
        assert browser.get(f"{url}/session", timeout=TIMEOUT_S).json() == signed_in
        assert browser.delete(f"{url}/session", timeout=TIMEOUT_S).json() == before
        assert not browser.cookies
        assert browser.get(f"{url}/session", timeout=TIMEOUT_S).json() == before


def test_the_cookie_is_hidden_from_scripts_and_other_sites_and_ends_with_the_browser(url: str, tokens: Tokens) -> None:
    cookie = sign_in(url, tokens.robot).headers["set-cookie"]
    name, *attributes = cookie.replace(" ", "").split(";")
    assert name == f"patchserve-{url.rpartition(':')[2]}={tokens.robot}"
    assert sorted(word.lower() for word in attributes) == ["httponly", "path=/", "samesite=strict"]


def test_with_tls_in_front_of_the_server_the_cookie_stays_within_tls(url: str, tokens: Tokens) -> None:
    headers = {"host": "inspect.example.com", "origin": "https://inspect.example.com"}
    cookie = sign_in(url, tokens.robot, **headers).headers["set-cookie"]
    assert cookie.startswith(f"__Host-patchserve={tokens.robot};")
    assert "secure" in cookie.lower()
    headers["cookie"] = cookie.partition(";")[0]
    assert requests.get(f"{url}/session", headers=headers, timeout=TIMEOUT_S).json()["signed_in"]


@pytest.mark.parametrize("sent", ["", None, 5, ["x"], {}])
def test_a_request_without_a_token_is_told_how_to_send_one(url: str, sent: object) -> None:
    answer = sign_in(url, sent)
    assert (answer.status_code, reason_of(answer)) == (400, "INVALID_FIELD")
    assert '{"token": "TOKEN"}' in answer.json()["message"]


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"token=x", b"[" * 8000, b'"x"'])
def test_a_body_that_is_no_json_object_is_refused(url: str, body: bytes) -> None:
    answer = requests.post(f"{url}/session", data=body, timeout=TIMEOUT_S)
    assert (answer.status_code, reason_of(answer)) == (400, "INVALID_FIELD")


@pytest.mark.parametrize("token", ["a;b", "a b", 'a"b', "a\\b", "a,b", "ä.ö.ü", "a\r\nSet-Cookie: b=c", "..", "a.b.c"])
def test_a_token_that_nobody_has_is_refused(url: str, token: str) -> None:
    answer = sign_in(url, token)
    assert (answer.status_code, reason_of(answer)) == (401, "INVALID_CREDENTIALS")
    assert "set-cookie" not in answer.headers
    assert token not in answer.text


def test_a_token_that_no_cookie_can_hold_is_refused_with_the_other_way(url: str) -> None:
    answer = sign_in(url, "x" * (MAX_TOKEN_CHARACTERS + 1))
    assert (answer.status_code, reason_of(answer)) == (400, "INVALID_FIELD")
    assert "authorization: Bearer TOKEN" in answer.json()["message"]


def test_a_body_larger_than_any_token_is_not_read(url: str) -> None:
    answer = sign_in(url, "x" * 9000)
    assert (answer.status_code, reason_of(answer)) == (413, "REQUEST_TOO_LARGE")


def test_wrong_and_expired_tokens_are_told_apart(url: str, tokens: Tokens) -> None:
    wrong, expired = sign_in(url, tokens.wrong), sign_in(url, tokens.expired)
    assert (wrong.status_code, reason_of(wrong)) == (401, "INVALID_CREDENTIALS")
    assert (expired.status_code, reason_of(expired)) == (401, "CREDENTIALS_EXPIRED")


def test_a_cookie_whose_token_has_expired_is_forgotten_and_the_page_is_told_why(url: str, tokens: Tokens) -> None:
    name = f"patchserve-{url.rpartition(':')[2]}"
    answer = requests.get(f"{url}/session", cookies={name: tokens.expired}, timeout=TIMEOUT_S)
    assert answer.status_code == 200
    assert not answer.json()["signed_in"]
    assert "expired" in answer.json()["problem"]
    assert f'{name}=""' in answer.headers["set-cookie"]
    assert "max-age=0" in answer.headers["set-cookie"].lower()


def test_a_header_counts_before_the_cookie(url: str, tokens: Tokens) -> None:
    with requests.Session() as browser:
        browser.post(f"{url}/session", json={"token": tokens.robot}, timeout=TIMEOUT_S)
        headers = {"authorization": f"Bearer {tokens.wrong}"}
        assert not browser.get(f"{url}/session", headers=headers, timeout=TIMEOUT_S).json()["signed_in"]


def test_a_server_without_tokens_needs_no_session() -> None:
    with running_server() as server:
        everything = {"token_needed": False, "signed_in": False, "scopes": ["infer", "manage"]}
        assert requests.get(f"{server.http_url}/session", timeout=TIMEOUT_S).json() == everything
        answer = sign_in(server.http_url, "anything")
        assert answer.json() == everything
        assert "set-cookie" not in answer.headers


def test_the_log_has_no_token(url: str, tokens: Tokens, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for token in (tokens.robot, tokens.wrong, tokens.expired):
            cookie = sign_in(url, token).headers.get("set-cookie", f"patchserve-{url.rpartition(':')[2]}={token};")
            headers = {"cookie": cookie.partition(";")[0]}
            requests.get(f"{url}/session", headers=headers, timeout=TIMEOUT_S)
            requests.delete(f"{url}/session", headers=headers, timeout=TIMEOUT_S)
    assert "POST /session" in caplog.text
    for token in (tokens.robot, tokens.wrong, tokens.expired):
        assert token.removeprefix("patchserve_") not in caplog.text


def test_wrong_tokens_wait_for_their_turn_as_other_refusals_do(
    url: str, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []

    async def wait(_: object, client: str, __: float | None) -> None:
        waited.append(client)

    monkeypatch.setattr("patchserve_server.serving.refusal_pacing.RefusalPacing.wait", wait)
    sign_in(url, tokens.wrong)
    name = f"patchserve-{url.rpartition(':')[2]}"
    requests.get(f"{url}/session", cookies={name: tokens.wrong}, timeout=TIMEOUT_S)
    assert waited == ["peer ipv4:127.0.0.1"] * 2
    sign_in(url, tokens.robot)
    assert len(waited) == 2


@pytest.mark.parametrize("scope", Scope)
def test_jwts_open_sessions_too(tmp_path: Path, scope: Scope) -> None:
    issuer = Issuer()
    (tmp_path / "jwks.json").write_text(issuer.jwks())
    asked: dict[str, Any] = {
        "jwt_issuer": Issuer.name,
        "jwt_audience": Issuer.audience,
        "jwt_jwks": tmp_path / "jwks.json",
    }
    with running_server(**asked) as server, requests.Session() as browser:
        token = issuer.sign(issuer.claims(scope))
        browser.post(f"{server.http_url}/session", json={"token": token}, timeout=TIMEOUT_S)
        found = browser.get(f"{server.http_url}/session", timeout=TIMEOUT_S).json()
        assert (found["signed_in"], found["scopes"]) == (True, [scope])


def test_who_has_no_token_takes_no_place_from_those_who_have_one(tokens: Tokens) -> None:
    with running_server(auth_tokens=tokens.file, max_calls=2) as server, ExitStack() as stack:
        for host in range(2, 12):
            caller = stack.enter_context(RawConnection(server.http_url, f"127.0.0.{host}"))
            caller.send(f"POST /session HTTP/1.1\r\nHost: {server.address}\r\nContent-Length: 100\r\n\r\n", '{"token":')
            assert sign_in(server.http_url, tokens.robot).status_code == 200  # the one before has been read
        answer = requests.get(
            f"{server.http_url}/v1/server", headers={"authorization": f"Bearer {tokens.robot}"}, timeout=TIMEOUT_S
        )
        assert answer.status_code == 200


def test_a_body_that_is_no_token_is_not_kept(url: str) -> None:
    with RawConnection(url) as caller:
        caller.send("POST /session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        caller.send(b"2000\r\n" + b"x" * 8192 + b"\r\n", b"1\r\nx\r\n")
        answer = caller.answer()
    assert (answer.code, answer.reason) == (413, "REQUEST_TOO_LARGE")


def test_a_drain_does_not_wait_for_a_token(tokens: Tokens) -> None:
    stop = threading.Event()
    with running_server(stop=stop, auth_tokens=tokens.file) as server, RawConnection(server.http_url) as caller:
        caller.send(f"POST /session HTTP/1.1\r\nHost: {server.address}\r\nExpect: 100-continue\r\n")
        caller.send("Content-Length: 100\r\n\r\n")
        assert caller.answer().code == 100
        stop.set()
        answer = caller.answer()
        assert (answer.code, answer.reason) == (503, "DRAINING")


def test_a_site_that_may_use_the_server_does_not_sign_its_visitors_in(tokens: Tokens) -> None:
    site = "https://line.example.com"
    with running_server(auth_tokens=tokens.file, http_allowed_origins=site) as server:
        answer = sign_in(server.http_url, tokens.robot, origin=site)
        assert (answer.status_code, reason_of(answer)) == (403, "OTHER_SITE")
        assert "set-cookie" not in answer.headers
