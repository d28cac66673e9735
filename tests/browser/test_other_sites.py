"""Pages of other sites, in a real Chromium: they change nothing, read nothing, and open no WebSocket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser.tabs import TIMEOUT_MS, chromium
from e2e.in_process import RunningServer, running_server
from fakes.gray import gray_png
from playwright.sync_api import Browser, Page

from patchserve_client import Client
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

HOSTS = ("127.0.0.1", "evil.example")  # another port of the same machine, and another site
_POST_IMAGE = """async ([url, bytes]) => {
  const form = new FormData();
  form.append("image", new Blob([new Uint8Array(bytes)]), "a.png");
  const sent = {method: "POST", mode: "no-cors", credentials: "include", body: form};
  await fetch(`${url}/load_reference`, sent).catch(() => {}); // the answer is not for other sites
}"""
_READ = """async ([url, token]) => {
  const headers = token ? {authorization: `Bearer ${token}`} : {};
  try {
    const response = await fetch(`${url}/v1/references`, {headers, credentials: token ? "omit" : "include"});
    return response.status;
  } catch (error) { return error.name; }
}"""
_OPEN_SOCKET = """url => new Promise((resolve) => {
  const socket = new WebSocket(`${url.replace("http", "ws")}/v1/references/default:inferStream`);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
})"""
_LOAD = """([url, kind]) => new Promise((resolve) => {
  const one = kind === "EventSource" ? new EventSource(url) : new Image();
  one.onopen = one.onload = () => resolve("loaded");
  one.onerror = () => resolve("refused");
  if (kind === "Image") one.src = url;
})"""
_SEND_FORM = """url => {
  const form = document.createElement("form");
  Object.assign(form, {method: "POST", action: `${url}/load_reference`, enctype: "multipart/form-data"});
  document.body.append(form);
  form.submit();
}"""


class _Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>Another site</title><link rel=icon href=data:,>")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def other_port() -> Iterator[int]:
    """The port of another site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield int(site.server_address[1])
        site.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for which evil.example is this machine."""
    with chromium("--host-resolver-rules=MAP evil.example 127.0.0.1") as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        context.set_default_timeout(TIMEOUT_MS)
        yield context.new_page()


@contextmanager
def guarded_server(folder: Path, **settings: Any) -> Iterator[tuple[RunningServer, str]]:
    """A server that needs a token, and a token that may do everything."""
    token, line = new_token("person", list(Scope))
    (folder / "tokens").write_text(line)
    with running_server(auth_tokens=folder / "tokens", **settings) as server:
        yield server, token


@pytest.mark.parametrize("host", HOSTS)
def test_another_site_uses_no_server_without_tokens(
    page: Page, server: RunningServer, other_port: int, host: str
) -> None:
    url = server.http_url
    page.goto(f"http://{host}:{other_port}/")
    page.evaluate(_POST_IMAGE, [url, list(gray_png(100))])
    assert page.evaluate(_READ, [url, ""]) == "TypeError"
    assert page.evaluate(_OPEN_SOCKET, url) == "refused"
    assert page.evaluate(_LOAD, [f"{url}/watch/events", "EventSource"]) == "refused"
    assert page.evaluate(_LOAD, [f"{url}/page/icon.svg", "Image"]) == "refused"
    with page.expect_navigation(), page.expect_response("**/load_reference") as answer:
        page.evaluate(_SEND_FORM, url)
    assert (answer.value.status, answer.value.json()["reason"]) == (403, "OTHER_SITE")
    with Client(server.address) as client:
        assert not list(client.list_references())


@pytest.mark.parametrize("host", HOSTS)
def test_another_site_does_not_use_the_session_of_a_person(
    page: Page, other_port: int, host: str, tmp_path: Path
) -> None:
    with guarded_server(tmp_path) as (server, token):
        page.goto(f"{server.http_url}/page/icon.svg")
        assert (
            page.evaluate(
                """async token => (await fetch("/session", {method: "POST", body: JSON.stringify({token})})).status""",
                token,
            )
            == 200
        )
        assert page.evaluate(_READ, ["", ""]) == 200
        assert page.evaluate("document.cookie") == ""
        page.goto(f"http://{host}:{other_port}/")
        page.evaluate(_POST_IMAGE, [server.http_url, list(gray_png(100))])
        assert page.evaluate(_READ, [server.http_url, ""]) == "TypeError"
        with Client(server.address, token=token) as client:
            assert not list(client.list_references())


def test_a_name_that_somebody_else_points_to_this_machine_shows_nothing(page: Page, server: RunningServer) -> None:
    answer = page.goto(server.http_url.replace("127.0.0.1", "evil.example"))
    assert answer is not None
    assert (answer.status, answer.json()["reason"]) == (403, "UNKNOWN_HOST")
    answer = page.goto(server.http_url.replace("127.0.0.1", "localhost"))
    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize("host", HOSTS)
def test_an_allowed_site_uses_its_token_and_not_the_session(
    page: Page, other_port: int, host: str, tmp_path: Path
) -> None:
    origin = f"http://{host}:{other_port}"
    with guarded_server(tmp_path, http_allowed_origins=origin) as (server, token):
        page.goto(origin)
        assert page.evaluate(_READ, [server.http_url, token]) == 200
        assert page.evaluate(_READ, [server.http_url, "patchserve_wrong"]) == 401
        page.context.add_cookies(
            [{"name": f"patchserve-{server.http_url.rpartition(':')[2]}", "value": token, "url": server.http_url}]
        )
        page.evaluate(_POST_IMAGE, [server.http_url, list(gray_png(100))])
        with Client(server.address, token=token) as client:
            assert not list(client.list_references())
