"""The documentation site is built strictly, loads nothing from elsewhere, finds words, and can be read by everybody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.screens import width_beyond_the_window
from browser.tabs import PHONE
from playwright.sync_api import Browser, Page, expect

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = REPO / "tools" / "site" / "node_modules"
PAGES = ("index", "tutorials/first-parcel", "troubleshooting", "architecture", "reference/python", "configuration")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a built site."""
    if not SCRIPTS.exists() and not os.environ.get("CI"):
        pytest.skip("`make site` installs what the site needs")
    folder = tmp_path_factory.mktemp("site")
    command = [str(Path(sys.executable).parent / "mkdocs"), "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:
    """A tab that fails the test if a page reports an error or asks for anything outside of the folder."""
    asked: list[str] = []
    errors: list[str] = []
    context = browser.new_context(reduced_motion="reduce")
    opened = context.new_page()
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield opened
    context.close()
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
    assert not errors


def test_its_search_finds_words_without_a_server(page: Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    page.get_by_role("textbox", name="Search").fill("QUEUE_FULL")
    expect(page.locator(".md-search-result__item").first).to_be_visible()
    page.locator(".md-search-result__link").first.click()
    expect(page.get_by_text("The server has reached its limit of")).to_be_visible()


def test_its_diagrams_are_drawn(page: Page, site: Path) -> None:
    page.goto((site / "architecture.html").as_uri())
    expect(page.locator("div.mermaid")).to_have_count(2)


def test_long_names_in_tables_are_broken_after_an_underscore(page: Page, site: Path) -> None:
    page.goto((site / "metrics.html").as_uri())
    name = page.locator("td code", has_text=re.compile(r"^patchserve_rpc_requests_total$")).first
    parts = name.evaluate(
        """code => [...code.childNodes].filter(node => node.nodeType === Node.TEXT_NODE).flatMap(node => {
            const range = document.createRange(); range.selectNode(node);
            return [range.getClientRects().length]; })"""
    )
    assert parts == [1, 1, 1, 1]  # each part is on one line


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_everybody_can_read_it(browser: Browser, site: Path, scheme: Any, device: str) -> None:
    options: dict[str, Any] = dict(PHONE) if device == "phone" else {}
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce", **options)
    tab = context.new_page()
    findings = {}
    for name in PAGES:
        tab.goto((site / f"{name}.html").as_uri())
        violations = Axe().run(tab).response["violations"]
        findings[name] = [
            (each["id"], [node["target"] for node in each["nodes"]][:3])
            for each in violations
            if each["impact"] in ("serious", "critical")
        ]
        assert width_beyond_the_window(tab) == 0, name
    context.close()
    assert not any(findings.values()), findings
