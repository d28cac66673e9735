"""One browser for each module, and servers with their HTTP face."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser.screens import load_gray
from browser.tabs import Tab, chromium, watched_tab
from e2e.in_process import RunningServer, running_server
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """A server with a fake detector and nothing loaded."""
    with running_server() as running:
        yield running


@pytest.fixture
def tab(browser: Browser, server: RunningServer) -> Iterator[Tab]:
    """A tab on a server with nothing loaded."""
    with watched_tab(browser, server.http_url) as watched:
        yield watched


@pytest.fixture
def gray(server: RunningServer) -> str:
    """A reference of three gray images on the server."""
    return load_gray(server.address).reference_id
