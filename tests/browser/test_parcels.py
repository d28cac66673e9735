"""One real story: the sample parcels, with the embedded backbone, from nothing to the verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser.screens import PARCELS, build
from browser.tabs import Tab, watched_tab
from e2e.in_process import running_server
from playwright.sync_api import Browser, expect


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with (
        running_server(backbone="efficientnet_lite2") as server,
        watched_tab(browser, server.http_url) as watched,
    ):
        yield watched


def test_parcels_from_a_first_reference_to_verdicts(tab: Tab) -> None:
    page = tab.open()
    build(page, "parcels", sorted((PARCELS / "train" / "good").iterdir()))
    expect(page.get_by_label("Compare with the reference")).to_have_value("parcels")
    damaged = [PARCELS / "test" / kind / "000.jpg" for kind in ("tear", "stain", "puncture", "crushed_corner")]
    intact = sorted((PARCELS / "test" / "good").iterdir())
    page.locator("#images").set_input_files([*damaged, *intact])
    expect(page.get_by_role("heading", name="8 images, 4 anomalous")).to_be_visible()
    rows = page.locator(".item")
    for index in range(8):
        expect(rows.nth(index)).to_contain_text("Anomalous" if index < 4 else "Intact")
    rows.nth(0).click()
    expect(page.get_by_role("heading", name=re.compile(r"Anomalous: 1\.\d\d x the threshold"))).to_be_visible()
    expect(page.locator(".picture img")).to_have_count(2)
    for picture in page.locator(".picture img").all():
        expect(picture).to_have_js_property("naturalWidth", 640)
    expect(page.locator(".outlines polygon")).not_to_have_count(0)
