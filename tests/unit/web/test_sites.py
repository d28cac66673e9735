"""Which requests of browsers pass: those of our own page, and of the sites that a setting lists."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.http_errors import OtherSiteError, UnknownHostError
from patchserve_server.web.sites import SiteRules, is_own_request

ANY_HOST = SiteRules(None, ())
LOOPBACK = SiteRules(frozenset({"localhost"}), ())
ALLOWED = "https://line.example.com"
WITH_ORIGIN = SiteRules(None, (ALLOWED,))
UNSAFE = ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND", "post")
OWN_HOST = "127.0.0.1:8080"
LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def request_of(method: str, headers: Mapping[str, str], kind: str = "http") -> HTTPConnection:
    sent = {"host": OWN_HOST, **headers}
    raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in sent.items()]
    return HTTPConnection({"type": kind, "method": method, "path": "/", "headers": raw})


def refusal(rules: SiteRules, request: HTTPConnection) -> type[PatchserveError] | None:
    try:
        rules.check(request)
    except PatchserveError as error:
        return type(error)
    return None


@pytest.mark.parametrize("method", [*UNSAFE, "GET"])
@pytest.mark.parametrize(
    "headers",
    [
        {},  # curl and other programs
        {"sec-fetch-site": "same-origin", "origin": f"http://{OWN_HOST}"},
        {"sec-fetch-site": "same-origin", "origin": "https://a-proxy-has-another-name.example"},
        {"sec-fetch-site": "none"},
        {"origin": f"http://{OWN_HOST}"},  # without TLS, browsers send no Sec-Fetch-Site to other machines
        {"origin": "HTTPS://LINE.example.com", "host": "line.example.com"},  # TLS ends at a proxy
    ],
)
def test_requests_of_our_page_and_of_programs_pass(method: str, headers: dict[str, str]) -> None:
    request = request_of(method, headers)
    assert refusal(ANY_HOST, request) is None
    assert is_own_request(request)


FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},  # another port of this machine
    {"sec-fetch-site": "same-origin, cross-site"},
    {"sec-fetch-site": "something new"},
    {"sec-fetch-site": ""},
    {"sec-fetch-site": "cross-site", "origin": f"http://{OWN_HOST}"},
    {"origin": "null"},  # a sandboxed frame, a file
    {"origin": ""},
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:9090"},
    {"origin": "http://127.0.0.1"},
    {"origin": f"http://{OWN_HOST}.evil.example"},
    {"origin": f"http://{OWN_HOST}@evil.example"},
    {"origin": "http://[::1"},
    {"origin": "http://", "host": ""},
    {"origin": OWN_HOST},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("method", UNSAFE)
def test_requests_of_other_sites_that_could_change_something_are_refused(method: str, headers: dict[str, str]) -> None:
    request = request_of(method, headers)
    assert refusal(ANY_HOST, request) is OtherSiteError
    assert not is_own_request(request)


@pytest.mark.parametrize("headers", FOREIGN)
def test_other_sites_open_no_web_socket(headers: dict[str, str]) -> None:
    assert refusal(ANY_HOST, request_of("GET", headers | LINK, "websocket")) is OtherSiteError


@pytest.mark.parametrize("destination", ["image", "script", "iframe", "object", "empty", "video"])
def test_other_sites_embed_nothing(destination: str) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": destination}
    assert refusal(ANY_HOST, request_of("GET", headers)) is OtherSiteError
    headers["sec-fetch-mode"] = "navigate"
    assert refusal(ANY_HOST, request_of("GET", headers)) is OtherSiteError


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"} | LINK, {}])
def test_a_link_on_another_site_leads_to_the_page(headers: dict[str, str]) -> None:
    assert refusal(ANY_HOST, request_of("GET", headers)) is None


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9090"])
def test_other_sites_open_no_stream_of_events_without_tls_either(origin: str) -> None:
    """Browsers send no Sec-Fetch-Site to other machines without TLS; event sources and scripts have an Origin."""
    assert refusal(ANY_HOST, request_of("GET", {"origin": origin})) is OtherSiteError


def test_a_form_of_another_site_sends_nothing() -> None:
    assert refusal(ANY_HOST, request_of("POST", {"sec-fetch-site": "cross-site"} | LINK)) is OtherSiteError


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("site", [{}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}])
def test_an_allowed_site_passes_without_the_cookie(kind: str, site: dict[str, str]) -> None:
    request = request_of("POST", {"origin": ALLOWED} | site, kind)
    assert refusal(WITH_ORIGIN, request) is None
    assert not is_own_request(request)


@pytest.mark.parametrize(
    "origin", ["https://line.example.com.evil.example", "http://line.example.com", f"{ALLOWED}:8443", "null", ""]
)
def test_sites_with_similar_names_do_not_pass(origin: str) -> None:
    assert refusal(WITH_ORIGIN, request_of("POST", {"origin": origin})) is OtherSiteError


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "localhost.", "127.0.0.1", OWN_HOST, "[::1]", "[::1]:8080", "10.0.0.7:80"]
)
def test_local_names_and_addresses_pass_on_loopback(host: str) -> None:
    assert refusal(LOOPBACK, request_of("GET", {"host": host})) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example@localhost:x",
        "127.1",
        "[::1].evil.example",
        "[::1",
        "",
        ":8080",
        "localhost, evil.example",
        "2130706433",
    ],
)
def test_other_names_for_this_machine_are_refused(host: str) -> None:
    assert refusal(LOOPBACK, request_of("GET", {"host": host})) is UnknownHostError
    assert refusal(LOOPBACK, request_of("GET", {"host": host}, "websocket")) is UnknownHostError


@pytest.mark.parametrize("host", ["a b", "a:99999", "a:-1", "[a]", "a/b", "a:1:2", "ä.example"])
def test_a_host_that_is_none_is_refused_everywhere(host: str) -> None:
    assert refusal(ANY_HOST, request_of("GET", {"host": host})) is UnknownHostError


@pytest.mark.parametrize(
    "host", ["", "evil.example", "patchserve:8080", "a_b.default.svc", "10.0.0.7:", "[fe80::1]:80"]
)
def test_elsewhere_any_name_passes(host: str) -> None:
    assert refusal(ANY_HOST, request_of("GET", {"host": host})) is None


@given(host=st.text(max_size=40), origin=st.text(max_size=40))
def test_any_text_is_an_answer_and_never_an_exception(host: str, origin: str) -> None:
    request = request_of("POST", {"host": host, "origin": origin})
    assert refusal(LOOPBACK, request) in (None, UnknownHostError, OtherSiteError)
