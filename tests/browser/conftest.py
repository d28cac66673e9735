"""One browser for each module, and servers with their HTTP face."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser.tabs import Tab, chromium, watched_tab
from e2e.in_process import running_server
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def server_url() -> Iterator[str]:
    """The URL of a server with a fake detector and nothing loaded."""
    with running_server() as server:
        yield server.http_url


@pytest.fixture
def tab(browser: Browser, server_url: str) -> Iterator[Tab]:
    with watched_tab(browser, server_url) as watched:
        yield watched
