"""The screen Reference, in a real Chromium."""

from __future__ import annotations

import re

from browser.screens import ANOMALOUS, INTACT, NORMAL, gray_file, inspect
from browser.tabs import Tab
from e2e.harness import connect
from e2e.in_process import RunningServer
from playwright.sync_api import Page, Route, expect

from patchserve.v1.reference_pb2 import GetReferenceRequest, Reference, TuneReferenceRequest


def now(server: RunningServer, reference_id: str = "gray") -> Reference:
    with connect(server.address) as stub:
        return stub.GetReference(GetReferenceRequest(reference_id=reference_id)).reference


def choose(page: Page, *levels: int) -> None:
    page.locator("#reference-images").set_input_files([gray_file(level) for level in levels])


def test_images_names_and_facts_are_shown(tab: Tab, server: RunningServer, gray: str) -> None:
    page = tab.open(f"reference/{gray}")
    images = page.get_by_role("region", name="3 images").locator("img")
    expect(images).to_have_count(3)
    for index in range(3):
        expect(page.get_by_text(f"normal-{index}.png")).to_be_visible()
        expect(images.nth(index)).to_have_js_property("naturalWidth", 16)  # the input size of the fake detector
    expect(page.get_by_role("term").filter(has_text="Revision")).to_be_visible()
    expect(page.get_by_text(now(server).revision[:12])).to_be_visible()


def test_the_slider_tells_what_would_have_been_and_tunes_only_when_it_is_applied(
    tab: Tab, server: RunningServer, gray: str
) -> None:
    page = tab.open(f"try/{gray}")
    inspect(page, gray_file(ANOMALOUS), gray_file(INTACT))
    expect(page.get_by_role("heading", name="2 images, 1 anomalous")).to_be_visible()
    before = now(server)
    page.get_by_role("link", name="Reference", exact=True).click()
    expect(page.get_by_text("1 of 2 recent images is anomalous.")).to_be_visible()
    slider, apply = page.get_by_label("Sensitivity", exact=True), page.get_by_role("button", name="Apply")
    expect(apply).to_be_disabled()
    slider.focus()
    for _ in range(10):
        slider.press("PageUp")  # a tenth of the slider each
    expect(page.get_by_text("2 of 2 recent images would be anomalous (now 1).")).to_be_visible()
    slider.press("Home")
    expect(page.get_by_text("0 of 2 recent images would be anomalous (now 1).")).to_be_visible()
    assert now(server).revision == before.revision
    apply.click()
    expect(page.get_by_text("The sensitivity is now 0.1.")).to_be_visible()
    expect(page.get_by_text("0 of 2 recent images are anomalous.")).to_be_visible()
    assert (now(server).sensitivity, now(server).previous_revision) == (0.1, before.revision)


def test_a_score_of_just_the_threshold_stands_on_the_side_of_the_intact(tab: Tab, gray: str) -> None:
    def at_the_threshold(route: Route) -> None:
        answer = route.fetch()
        content = answer.json()
        calibration = content["reference"]["calibration"]
        calibration["normal_scores"]["scores"] = [calibration["image_threshold"]]
        route.fulfill(response=answer, json=content)

    tab.page.route(f"**/v1/references/{gray}", at_the_threshold)
    page = tab.open(f"reference/{gray}")
    expect(page.get_by_text("0 of 1 normal score is anomalous.")).to_be_visible()
    bars = page.locator(".histogram rect")
    heights = bars.evaluate_all("bars => bars.map((bar) => Number(bar.getAttribute('height')))")
    assert heights[15] == 1  # the last one below 1 x, of 32 up to 2 x
    assert sum(heights) == 1


def test_added_images_are_taken_back_by_undo(tab: Tab, server: RunningServer, gray: str) -> None:
    before = now(server)
    page = tab.open(f"reference/{gray}")
    expect(page.get_by_role("heading", name="3 images")).to_be_visible()
    expect(page.get_by_role("button", name="Undo the last change")).to_have_count(0)
    page.get_by_role("button", name="Add images").click()
    choose(page, ANOMALOUS)
    page.get_by_role("button", name="Add these images").click()
    expect(page.get_by_text("Added. The reference now has 4 images.")).to_be_visible()
    page.get_by_role("button", name="Undo the last change").click()
    page.get_by_role("button", name="Undo the change").click()
    expect(page.get_by_text("The last change is undone.")).to_be_visible()
    expect(page.get_by_role("heading", name="3 images")).to_be_visible()
    assert now(server).revision == before.revision


def test_all_images_are_replaced_after_a_question(tab: Tab, server: RunningServer, gray: str) -> None:
    page = tab.open(f"reference/{gray}")
    page.get_by_role("button", name="Replace all").click()
    question = page.get_by_role("dialog", name="Replace all images?")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect(page.get_by_role("button", name="Replace all")).to_be_focused()
    page.get_by_role("button", name="Replace all").click()
    page.get_by_role("button", name="Choose new images").click()
    choose(page, NORMAL, INTACT)
    page.get_by_role("button", name="Replace all images").click()
    expect(page.get_by_role("heading", name="2 images")).to_be_visible()
    assert now(server).image_count == 2


def test_a_reference_is_deleted_after_its_name_is_typed(tab: Tab, gray: str) -> None:
    page = tab.open(f"reference/{gray}")
    page.get_by_role("button", name="Delete").click()
    question = page.get_by_role("dialog", name="Delete this reference?")
    confirm = question.get_by_role("button", name="Delete it")
    expect(confirm).to_be_disabled()
    question.get_by_label("To confirm, type the name: gray").fill("gra")
    expect(confirm).to_be_disabled()
    question.get_by_label("To confirm, type the name: gray").fill("gray")
    confirm.click()
    expect(page.get_by_text("There is no reference yet.")).to_be_visible()


def test_a_change_by_somebody_else_is_noticed_and_nothing_is_done(tab: Tab, server: RunningServer, gray: str) -> None:
    tab.expected.add("status of 400")
    page = tab.open(f"reference/{gray}")
    slider = page.get_by_label("Sensitivity", exact=True)
    slider.press("Home")
    with connect(server.address) as stub:
        stub.TuneReference(TuneReferenceRequest(reference_id=gray, sensitivity=2))
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text(re.compile("Somebody else changed this reference in the meantime"))).to_be_visible()
    assert now(server).sensitivity == 2
    page.get_by_role("button", name="Show it as it is now").click()
    expect(page.get_by_role("status").filter(has_text="2")).not_to_have_count(0)
    expect(page.locator("output")).to_have_text("2")


def test_an_unknown_reference_is_told(tab: Tab, gray: str) -> None:
    page = tab.open("reference/other")
    expect(page.get_by_text("There is no reference “other”.")).to_be_visible()
    expect(page.get_by_role("heading", name="3 images")).to_be_visible()


def test_whether_copies_of_the_images_were_taken_is_told(tab: Tab, gray: str) -> None:
    views: dict[str, object] = {"views": "REFERENCE_VIEWS_AUTO", "scales": 1}

    def answer(route: Route) -> None:
        response = route.fetch()
        content = response.json()
        content["reference"] |= views
        route.fulfill(response=response, json=content)

    tab.page.route(f"**/v1/references/{gray}", answer)
    for taken, words in (
        ({}, "with few images, also mirrored and turned ones, unless that spreads their scores"),
        ({"views_per_image": 1}, "the images as they are: copies were not taken"),
        ({"views_per_image": 8}, "the images, and mirrored and turned ones: 8 views of each"),
        ({"views_per_image": 2, "scales": 2}, "the images, and smaller or larger ones: 2 views of each"),
    ):
        views.update(taken)
        page = tab.open(f"reference/{gray}")
        expect(page.get_by_role("definition").filter(has_text=words)).to_be_visible()
