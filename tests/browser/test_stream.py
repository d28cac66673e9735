"""InferStream from a page, over a WebSocket, as docs/http.md shows it: with the cookie and the security policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser.tabs import watched_tab
from e2e.in_process import running_server
from fakes.gray import gray_png
from playwright.sync_api import Browser

from patchserve_client import Client
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

_STREAM = """images => new Promise((resolve) => {
  const stream = new WebSocket("/v1/references/default:inferStream?max_in_flight=2"), messages = [];
  stream.onopen = () => {
    for (const image of images) stream.send(new Blob([new Uint8Array(image)]));
    stream.send(JSON.stringify({end: true}));
  };
  stream.onmessage = ({data}) => messages.push(JSON.parse(data));
  stream.onclose = ({code, reason}) => resolve({messages, code, reason});
})"""


def test_a_page_streams_images_after_its_person_has_signed_in(browser: Browser, tmp_path: Path) -> None:
    token, line = new_token("person", list(Scope))
    (tmp_path / "tokens").write_text(line)
    images = [list(gray_png(100)), list(b"no image"), list(gray_png(180))]
    with running_server(auth_tokens=tmp_path / "tokens") as server:
        with Client(server.address, token=token) as client:
            client.load_reference([gray_png(100)])
        with watched_tab(browser, server.http_url) as tab:
            tab.expected.add("status of 401")  # before the person has signed in
            page = tab.open()
            refused: Any = page.evaluate(_STREAM, images)
            assert (refused["code"], refused["reason"]) == (1008, "NO_CREDENTIALS")
            assert [message["status"]["code"] for message in refused["messages"]] == [16]
            page.evaluate("token => fetch('/session', {method: 'POST', body: JSON.stringify({token})})", token)
            answered: Any = page.evaluate(_STREAM, images)
        assert (answered["code"], answered["reason"]) == (1000, "")
        ready, *results, last = answered["messages"]
        assert ready["ready"]["max_in_flight"] == 2
        outcomes = [("response" in each["result"], each["result"]["sequence"]) for each in results]
        assert outcomes == [(True, "0"), (False, "1"), (True, "2")]
        assert last["status"]["code"] == 0
