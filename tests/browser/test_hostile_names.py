"""Names that are markup are shown as text, and nothing of the page comes from elsewhere."""

from __future__ import annotations

from urllib.parse import quote

from browser.screens import ANOMALOUS, NORMAL, build, gray_file, inspect
from browser.tabs import Tab
from e2e.harness import connect
from e2e.in_process import RunningServer
from fakes.gray import gray_png
from playwright.sync_api import expect

from patchserve.v1.reference_pb2 import LoadReferenceRequest

HOSTILE = "<img src=x onerror=document.title='taken'>.png"


def test_a_hostile_file_name_is_text_on_every_screen(tab: Tab, server: RunningServer) -> None:
    with connect(server.address) as stub:
        images = [gray_png(NORMAL)] * 3
        stub.LoadReference(LoadReferenceRequest(reference_id="gray", images=images, image_names=[HOSTILE] * 3))
    page = tab.open("try/gray")
    inspect(page, gray_file(ANOMALOUS, HOSTILE))
    expect(page.locator(".result-name")).to_have_text(HOSTILE)
    expect(page.get_by_role("article", name=f"Result of {HOSTILE}")).to_be_visible()
    page.get_by_text("The same from a program").click()
    for language in ("curl", "grpcurl", "Python"):
        page.get_by_label(language, exact=True).check()
        expect(page.locator("pre")).to_contain_text("onerror=document.title")
    page.get_by_role("link", name="Reference", exact=True).click()
    expect(page.locator(".grid").get_by_text(HOSTILE)).to_have_count(3)
    page.get_by_role("button", name="Add images").click()
    page.locator("#reference-images").set_input_files([gray_file(NORMAL, HOSTILE)])
    expect(page.locator(".thumbnails").get_by_text(HOSTILE)).to_have_count(1)
    page.get_by_role("link", name="Watch").click()
    expect(page.get_by_role("heading", name="Watch")).to_be_visible()
    assert page.title() == "Watch · patchserve"
    assert page.locator("img[src='x']").count() == 0


def test_a_hostile_reference_id_is_text(tab: Tab, server: RunningServer) -> None:
    tab.expected.add("status of 400")  # the wall of a reference whose id is none
    page = tab.open()
    page.get_by_label("Name of the reference").fill(HOSTILE)
    expect(page.get_by_text("A name begins with a letter")).to_be_visible()
    build(page, "gray", [gray_file(NORMAL)])
    expect(page.get_by_label("Compare with the reference")).to_be_visible()
    for screen in ("try", "reference", "watch"):
        tab.open(f"{screen}/{quote(HOSTILE, safe='')}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if screen != "watch":
            expect(page.get_by_text(f"There is no reference “{HOSTILE}”.")).to_be_visible()
        assert page.locator("img[src='x']").count() == 0


def test_the_policy_allows_nothing_from_elsewhere_and_nothing_inline(tab: Tab) -> None:
    policies = []
    tab.page.on("response", lambda response: policies.append(response.headers.get("content-security-policy", "")))
    page = tab.open()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert policies
    for policy in policies:
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    tab.expected.add("CSP: script-src")
    tab.expected.add("inline")
    page.evaluate("() => document.body.setAttribute('onclick', 'document.title = `taken`')")
    page.locator("body").click(position={"x": 5, "y": 400})
    assert page.title() == "Try it · patchserve"
    assert any("CSP: script-src" in fault for fault in tab.faults)  # so the other tests would see a violation
