"""Tabs of a real Chromium whose faults fail the test: console errors, page errors, violations of the content security
policy, and requests to other hosts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

TIMEOUT_MS = 60_000
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
_CSP_LISTENER = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error("CSP:", event.violatedDirective, event.blockedURI, event.sourceFile));
"""

expect.set_options(timeout=TIMEOUT_MS)


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Debian's Chromium. Without it the test is skipped, except in CI."""
    found = shutil.which("chromium")
    if found is None and "CI" in os.environ:
        pytest.fail("CI runs the tests of the page, but chromium is not installed")
    if found is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", *flags], timeout=TIMEOUT_MS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A tab of a server's page.

    Args:
        page: Playwright's.
        url: of the server.
        faults: what went wrong so far.
        expected: parts of faults that this test causes on purpose, such as "status of 401".
    """

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=set)

    def open(self, screen: str = "try") -> Page:
        """Opens a screen, such as `reference/belt`, anew."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/#/{screen}")
        return self.page

    def heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text} ({message.location.get('url')})")

    def requested(self, request: Request) -> None:
        host, own = urlsplit(request.url), urlsplit(self.url)
        if host.scheme not in ("blob", "data", "about") and host.netloc != own.netloc:
            self.faults.append(f"request to another host: {request.url}")

    def check(self) -> None:
        """Fails if anything went wrong that this test does not cause on purpose."""
        unexpected = [fault for fault in self.faults if not any(part in fault for part in self.expected)]
        assert not unexpected, unexpected


@contextmanager
def watched_tab(browser: Browser, url: str, **options: Any) -> Iterator[Tab]:
    """A tab in a context of its own, with Playwright's `options` of a context. At its end it must have no faults."""
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(_CSP_LISTENER)
    tab = Tab(context.new_page(), url)
    context.on("request", tab.requested)
    context.on("console", tab.heard)
    context.on("weberror", lambda error: tab.faults.append(f"page: {error.error}"))
    try:
        yield tab
        tab.check()
    finally:
        context.close()
