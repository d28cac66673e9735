"""Every screen by axe-core in both color schemes, on a phone, and with the keyboard alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.screens import ANOMALOUS, INTACT, gray_file, inspect, width_beyond_the_window
from browser.tabs import PHONE, Tab, watched_tab
from e2e.in_process import RunningServer
from playwright.sync_api import Browser, Page, expect

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


def serious(page: Page) -> list[str]:
    """The serious and critical findings of axe-core."""
    found = Axe().run(page).response["violations"]
    return [
        f"{finding['id']}: {[node['target'] for node in finding['nodes']]} {finding['nodes'][0]['failureSummary']}"
        for finding in found
        if finding["impact"] in ("serious", "critical")
    ]


@SCHEMES
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_no_screen_has_serious_findings_or_is_wider_than_a_phone(
    browser: Browser, server: RunningServer, gray: str, scheme: Any, device: str
) -> None:
    options: dict[str, Any] = dict(PHONE) if device == "phone" else {}
    # Without transitions: axe-core would see the colors between two states of a button.
    options["reduced_motion"] = "reduce"
    with watched_tab(browser, server.http_url, color_scheme=scheme, **options) as tab:
        page = tab.open("try/gray")
        inspect(page, gray_file(ANOMALOUS), gray_file(INTACT))
        page.get_by_text("The same from a program").click()
        expect(page.get_by_role("heading", name="2 images, 1 anomalous")).to_be_visible()
        findings = {"try": serious(page)}
        widths = {"try": width_beyond_the_window(page)}
        page.get_by_role("button", name=re.compile("gray-110.png")).click()
        expect(page.get_by_role("heading", name="Intact: 0.50 x the threshold")).to_be_visible()
        findings["intact"] = serious(page)
        page.get_by_role("button", name="New reference").click()
        page.locator("#reference-images").set_input_files([gray_file(INTACT, "a" * 200 + ".png")])
        page.get_by_text("Profile and size: ").click()
        findings["new"], widths["new"] = serious(page), width_beyond_the_window(page)
        page.get_by_role("link", name="Reference", exact=True).click()
        expect(page.get_by_role("heading", name="3 images")).to_be_visible()
        findings["reference"], widths["reference"] = serious(page), width_beyond_the_window(page)
        page.get_by_role("button", name="Delete").click()
        findings["question"] = serious(page)
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("link", name="Watch").click()
        expect(page.get_by_role("heading", name="Watch")).to_be_visible()
        findings["watch"], widths["watch"] = serious(page), width_beyond_the_window(page)
        assert not any(findings.values()), findings
        assert not any(widths.values()), widths


@SCHEMES
def test_nor_has_the_first_screen_of_a_server_with_nothing_loaded(
    browser: Browser, server: RunningServer, scheme: Any
) -> None:
    with watched_tab(browser, server.http_url, color_scheme=scheme, **PHONE) as tab:
        page = tab.open()
        expect(page.get_by_role("heading", name="Find what is different")).to_be_visible()
        assert (serious(page), width_beyond_the_window(page)) == ([], 0)


def test_targets_are_large_enough_for_a_finger(browser: Browser, server: RunningServer, gray: str) -> None:
    with watched_tab(browser, server.http_url, **PHONE) as tab:
        expect(tab.open("try/gray").get_by_text("Take a photo")).to_be_visible()
        expect(tab.page.locator("#photo")).to_have_attribute("capture", "environment")
        for screen in ("try/gray", "reference/gray", "watch"):
            page = tab.open(screen)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            small = page.evaluate(
                """() => [...document.querySelectorAll("button, nav a, select, .as-button")]
                .map((each) => [each.textContent, each.getBoundingClientRect().height])
                .filter(([, height]) => height > 0 && height < 40)"""
            )
            assert small == [], screen


def test_the_keyboard_is_enough(tab: Tab, gray: str) -> None:
    page = tab.open("try/gray")
    expect(page.get_by_label("Compare with the reference")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    assert page.url.endswith("try/gray"), "it is the same screen"
    # Chromium is asked for the event before the keys on the way there, so that it surely knows when Enter comes.
    with page.expect_file_chooser() as chooser:
        tab_to(page, page.get_by_label("Compare with the reference"))
        tab_to(page, page.locator("#images"))
        page.keyboard.press("Enter")
    chooser.value.set_files([gray_file(ANOMALOUS)])
    expect(page.get_by_role("heading", name="Anomalous: 2.50 x the threshold")).to_be_visible()
    slider = page.get_by_label("Image", exact=True)
    tab_to(page, slider)
    before = slider.input_value()
    page.keyboard.press("ArrowRight")
    assert float(slider.input_value()) > float(before)
    box = page.get_by_label("Outline 1 region")
    tab_to(page, box)
    page.keyboard.press("Space")
    expect(box).not_to_be_checked()
    page.get_by_role("link", name="Reference", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="3 images")).to_be_visible()
    tab_to(page, page.get_by_role("button", name="Delete"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Delete")).to_be_focused()


def tab_to(page: Page, target: Any) -> None:
    """Presses Tab until the target has the focus."""
    for _ in range(60):
        if target.evaluate("(node) => node === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{target} cannot be reached with Tab")
