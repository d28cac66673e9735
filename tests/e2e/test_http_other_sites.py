"""Other sites cannot use the HTTP face through a browser, unless a setting lists them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from e2e.in_process import running_server

from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import StartupError
from patchserve_server.serving.failure_log import LINES
from patchserve_server.web.security_headers import SECURITY_HEADERS

TIMEOUT_S = 60
ALLOWED = "https://line.example.com"
EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server on loopback without tokens: who reaches it may do everything."""
    with running_server() as server:
        yield server.http_url


@pytest.fixture(scope="module")
def token() -> tuple[str, str]:
    """A token and its line."""
    return new_token("line", list(Scope))


@pytest.fixture(scope="module")
def open_url(tmp_path_factory: pytest.TempPathFactory, token: tuple[str, str]) -> Iterator[str]:
    """A server with tokens that another site may use."""
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(token[1])
    with running_server(auth_tokens=file, http_allowed_origins=f"{ALLOWED}, http://localhost:3000") as server:
        yield server.http_url


def send(method: str, url: str, **headers: str) -> requests.Response:
    return requests.request(method, url, headers=headers, timeout=TIMEOUT_S)


def reason_of(answer: requests.Response) -> str:
    """The reason, as the path writes errors."""
    content = answer.json()
    return next(str(detail["reason"]) for detail in content.get("details", [content]) if "reason" in detail)


@pytest.mark.parametrize("path", ["/session", "/no/such/path"])
@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", "text/plain", "application/x-www-form-urlencoded"]
)
def test_a_form_of_another_site_changes_nothing(url: str, path: str, content_type: str) -> None:
    answer = send("POST", url + path, origin=EVIL, **{"content-type": content_type})
    assert (answer.status_code, reason_of(answer)) == (403, "OTHER_SITE")


def test_the_log_counts_refused_requests_of_other_sites(caplog: pytest.LogCaptureFixture) -> None:
    with running_server() as server, caplog.at_level(logging.INFO):
        for _ in range(2 * LINES):
            send("POST", f"{server.http_url}/session", origin="http://logged.example")
    lines = [record.message for record in caplog.records if "A page of another site" in record.message]
    assert len(lines) == LINES
    assert "logged.example" not in caplog.text
    assert {record.name.partition(".")[0] for record in caplog.records} == {"patchserve_server"}


def test_another_port_of_this_machine_is_another_site(url: str) -> None:
    assert send("POST", f"{url}/session", origin="http://127.0.0.1:1").status_code == 403


def test_a_name_of_somebody_elses_for_this_machine_is_refused(url: str) -> None:
    answer = send("GET", f"{url}/health", host="evil.example")
    assert (answer.status_code, reason_of(answer)) == (403, "UNKNOWN_HOST")
    assert "--http-allowed-hosts" in answer.json()["error"]
    assert send("GET", f"{url}/health", host="localhost:1").status_code == 200


def test_names_that_are_allowed_are_answered() -> None:
    with running_server(http_allowed_hosts="Inspect.example.com, other") as server:
        for host, code in (("inspect.example.com", 200), ("OTHER:8080", 200), ("localhost", 200), ("evil", 403)):
            assert send("GET", f"{server.http_url}/health", host=host).status_code == code


def test_with_tokens_any_name_is_answered(open_url: str) -> None:
    assert send("GET", f"{open_url}/health", host="inspect.example.com").status_code == 200


def test_no_site_may_read_answers_by_default(url: str) -> None:
    for method in ("GET", "OPTIONS"):
        answer = send(method, f"{url}/health", origin=ALLOWED, **{"access-control-request-method": "GET"})
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_an_allowed_site_sends_its_token_in_the_header(open_url: str, token: tuple[str, str]) -> None:
    sent = "authorization, content-type, x-patchserve-reference"
    asked = {"access-control-request-method": "POST", "access-control-request-headers": sent}
    preflight = send("OPTIONS", f"{open_url}/session", origin=ALLOWED, **asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ALLOWED
    assert {"authorization", "content-type", "x-patchserve-reference"} <= set(
        preflight.headers["access-control-allow-headers"].lower().split(", ")
    )
    answer = send("GET", f"{open_url}/session", origin=ALLOWED, authorization=f"Bearer {token[0]}")
    assert answer.json()["name"] == "line"
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert "origin" in answer.headers["vary"].lower()


def test_the_cookie_counts_for_the_page_alone(open_url: str, token: tuple[str, str]) -> None:
    cookie = f"patchserve-{open_url.rpartition(':')[2]}={token[0]}"
    own = send("GET", f"{open_url}/session", cookie=cookie, origin=open_url)
    assert own.json()["signed_in"]
    for site in ({}, {"sec-fetch-site": "same-site"}):
        answer = send("GET", f"{open_url}/session", cookie=cookie, origin="http://localhost:3000", **site)
        assert not answer.json()["signed_in"]
        assert "access-control-allow-credentials" not in answer.headers


def test_a_site_that_is_not_listed_gets_nothing(open_url: str) -> None:
    preflight = send("OPTIONS", f"{open_url}/session", origin=EVIL, **{"access-control-request-method": "POST"})
    assert preflight.status_code == 400
    assert "access-control-allow-origin" not in preflight.headers
    answer = send("POST", f"{open_url}/session", origin=EVIL)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("GET", "/no/such/path"), ("DELETE", "/health")])
def test_every_answer_has_the_security_headers(url: str, method: str, path: str) -> None:
    headers = send(method, url + path).headers
    assert {name: headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_events_have_the_security_headers_and_come_at_once(url: str) -> None:
    with requests.get(f"{url}/watch/events", stream=True, timeout=TIMEOUT_S) as answer:
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert next(answer.iter_content(16))


def test_refusals_have_the_security_headers_too(url: str) -> None:
    headers = send("POST", f"{url}/session", origin=EVIL).headers
    assert {name: headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


@pytest.mark.parametrize("setting", ["*", "line.example.com", "https://line.example.com/", "https://Line.example.com"])
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(setting: str) -> None:
    with (
        pytest.raises((ValueError, StartupError), match="as browsers send it"),
        running_server(http_allowed_origins=setting),
    ):
        pass


@pytest.mark.parametrize("setting", ["https://inspect.example.com", "inspect.example.com:8080", "*"])
def test_a_host_with_more_than_its_name_is_refused_at_the_start(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the name of a host"), running_server(http_allowed_hosts=setting):
        pass
