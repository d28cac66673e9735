"""The screen Try it, in a real Chromium."""

from __future__ import annotations

import re
import threading
from urllib.parse import quote

import pytest
import requests
from browser.screens import ANOMALOUS, INTACT, NORMAL, broken_file, build, gray_file, inspect
from browser.tabs import PHONE, Tab, watched_tab
from e2e.in_process import RunningServer, running_server
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.images import encoded, noise
from fakes.waiting import wait_until
from playwright.sync_api import Browser, FilePayload, Route, expect


def test_a_reference_is_built_by_file_chooser_and_tells_intact_from_anomalous(tab: Tab) -> None:
    page = tab.open()
    expect(page.get_by_role("heading", name="Find what is different")).to_be_visible()
    build(page, "belt-1", [gray_file(NORMAL, f"{index}.png") for index in range(3)])
    expect(page.get_by_label("Compare with the reference")).to_have_value("belt-1")
    inspect(page, gray_file(ANOMALOUS), gray_file(INTACT))
    expect(page.get_by_role("heading", name="Anomalous: 2.50 x the threshold")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("The score is 2.50 x; the threshold is 1 x."))).to_be_visible()
    page.get_by_role("button", name=re.compile("gray-110.png")).click()
    expect(page.get_by_role("heading", name="Intact: 0.50 x the threshold")).to_be_visible()
    expect(page.get_by_role("heading", name="2 images, 1 anomalous")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="Intact: 0.50 x")).to_have_count(1)  # for screen readers


def test_the_verdict_comes_into_view_on_a_phone(browser: Browser, server: RunningServer, gray: str) -> None:
    with watched_tab(browser, server.http_url, **PHONE) as tab:
        page = tab.open(f"try/{gray}")
        inspect(page, gray_file(ANOMALOUS))
        heading = page.get_by_role("heading", name="Anomalous: 2.50 x the threshold")
        expect(heading).to_be_in_viewport(ratio=1)
        expect(page.locator(".picture")).to_be_in_viewport()
        page.get_by_role("button", name="Use the camera").click()
        expect(page.get_by_role("region", name="Camera")).to_be_in_viewport()


def test_a_reference_that_is_gone_is_told_in_words_for_people(tab: Tab, server: RunningServer, gray: str) -> None:
    page = tab.open(f"try/{gray}")
    expect(page.get_by_label("Compare with the reference")).to_have_value(gray)
    requests.delete(f"{server.http_url}/v1/references/{gray}", timeout=30).raise_for_status()
    tab.expected.add("status of 404")
    page.locator("#images").set_input_files(gray_file(INTACT))
    expect(page.get_by_text("The server no longer has this reference")).to_be_visible()


def test_all_of_many_images_are_inspected(tab: Tab, gray: str) -> None:
    page = tab.open(f"try/{gray}")
    inspect(page, *(gray_file(INTACT, f"{index}.png") for index in range(70)))
    page.locator("#images").set_input_files([gray_file(ANOMALOUS)])  # while the others wait
    expect(page.get_by_role("heading", name="71 images, 1 anomalous")).to_be_visible()
    expect(page.locator(".item .badge.good")).to_have_count(70)


def test_images_are_dropped(tab: Tab, gray: str) -> None:
    page = tab.open(f"try/{gray}")
    expect(page.get_by_text("Drop or choose images to inspect")).to_be_visible()
    dropped = page.evaluate_handle(
        """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
          transfer.items.add(new File(["text"], "notes.txt", {type: "text/plain"}));
          return transfer;
        }""",
        list(gray_png(ANOMALOUS)),
    )
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.get_by_role("heading", name="Anomalous: 2.50 x the threshold")).to_be_visible()
    expect(page.get_by_text("One file is left out: not JPEG, PNG, WebP, BMP or TIFF.")).to_be_visible()


def test_slider_and_outlines(tab: Tab, gray: str) -> None:
    page = tab.open(f"try/{gray}")
    inspect(page, gray_file(ANOMALOUS))
    heat, slider = page.locator(".heat"), page.get_by_label("Image", exact=True)
    slider.focus()
    slider.press("Home")
    expect(heat).to_have_css("opacity", "0")
    slider.press("End")
    expect(heat).to_have_css("opacity", "1")
    outlines = page.locator(".outlines")
    expect(outlines.locator("polygon").first).to_be_attached()
    page.get_by_label("Outline 1 region").uncheck()
    expect(outlines).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a b", "A name has only the letters"),
        ("-a", "A name begins with"),
        ("a" * 65, "A name has at most 64 characters."),
        ("é", "A name begins with"),
    ],
)
def test_a_name_is_checked_while_it_is_typed_by_the_rules_of_the_server(tab: Tab, name: str, problem: str) -> None:
    page = tab.open()
    field = page.get_by_label("Name of the reference")
    field.fill(name)
    expect(page.get_by_text(problem)).to_be_visible()
    expect(field).to_have_attribute("aria-invalid", "true")
    answer = requests.get(f"{tab.url}/v1/references/{quote(name)}", timeout=60)
    assert answer.status_code == 400
    page.locator("#reference-images").set_input_files([gray_file(NORMAL)])
    page.get_by_role("button", name="Build the reference").click()
    expect(field).to_be_focused()
    field.fill("a.b_c-1")
    expect(page.get_by_text(problem)).to_be_hidden()


def test_a_load_shows_its_progress_and_can_be_cancelled(browser: Browser) -> None:
    detector = FakeDetector()
    detector.fit_gate = threading.Event()
    with running_server(detector=detector) as server, watched_tab(browser, server.http_url) as tab:
        page = tab.open()
        build(page, "slow", [gray_file(NORMAL), gray_file(INTACT)])
        expect(page.get_by_text("Computing patches")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("Cancelled.")).to_be_visible()
        wait_until(lambda: requests.get(f"{server.http_url}/v1/loads", timeout=60).json()["loads"] == [])
        detector.fit_gate.set()
        assert requests.get(f"{server.http_url}/v1/references", timeout=60).json()["references"] == []
        page.get_by_role("button", name="Build the reference").click()
        expect(page.get_by_label("Compare with the reference")).to_have_value("slow")


def test_an_image_that_is_none_fails_alone_and_says_why(tab: Tab, gray: str) -> None:
    tab.expected.add("status of 400")
    page = tab.open(f"try/{gray}")
    page.locator("#images").set_input_files([broken_file("broken.png"), gray_file(INTACT)])
    expect(page.get_by_role("alert").filter(has_text="broken.png: ")).to_be_visible()
    page.get_by_role("button", name=re.compile("gray-110.png")).click()
    expect(page.get_by_role("heading", name="Intact: 0.50 x the threshold")).to_be_visible()


def test_of_a_reference_the_page_says_which_image_is_broken(tab: Tab) -> None:
    tab.expected.add("status of 400")
    page = tab.open()
    page.get_by_label("Name of the reference").fill("broken")
    page.locator("#reference-images").set_input_files([gray_file(NORMAL), broken_file("second.png")])
    page.get_by_role("button", name="Build the reference").click()
    expect(page.get_by_role("alert").filter(has_text="second.png: ")).to_be_visible()


def test_an_existing_reference_is_replaced_only_after_a_question(tab: Tab, gray: str) -> None:
    page = tab.open(f"try/{gray}")
    page.get_by_role("button", name="New reference").click()
    build(page, gray, [gray_file(ANOMALOUS)])
    question = page.get_by_role("dialog", name="Replace this reference?")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    question.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Build the reference").click()
    page.get_by_role("button", name="Replace it").click()
    expect(page.get_by_text("gray (1 image)")).to_be_attached()


def test_verdicts_stay_while_other_screens_are_open(tab: Tab, gray: str) -> None:
    page = tab.open(f"try/{gray}")
    inspect(page, gray_file(ANOMALOUS))
    page.get_by_role("link", name="Reference", exact=True).click()
    expect(page.get_by_role("heading", name="3 images")).to_be_visible()
    page.get_by_role("link", name="Try it").click()
    expect(page.get_by_role("heading", name="Anomalous: 2.50 x the threshold")).to_be_visible()


def test_a_lost_connection_is_told_and_found_again(browser: Browser, server: RunningServer) -> None:
    with watched_tab(browser, server.http_url) as tab:
        tab.expected.add("ERR_INTERNET_DISCONNECTED")
        page = tab.open()
        expect(page.get_by_label("Name of the reference")).to_be_visible()
        page.context.set_offline(True)
        build(page, "lost", [gray_file(NORMAL)])
        expect(page.locator("#connection")).to_have_text("There is no connection to the server. Trying again…")
        page.context.set_offline(False)
        expect(page.locator("#connection")).to_be_hidden()


def test_without_a_camera_the_page_says_so(browser: Browser, server: RunningServer, gray: str) -> None:
    with watched_tab(browser, server.http_url, permissions=["camera"]) as tab:
        page = tab.open(f"try/{gray}")
        page.get_by_role("button", name="Use the camera").click()
        expect(page.get_by_role("alert").filter(has_text="There is no camera on this computer.")).to_be_visible()


def test_images_that_are_too_large_for_one_request_are_scaled_down(browser: Browser) -> None:
    photo = encoded(noise(1700), "PNG")  # 9 MB each
    files: list[FilePayload] = [{"name": f"{i}.png", "mimeType": "image/png", "buffer": photo} for i in range(2)]
    with (
        running_server(max_message_mib=16, max_image_mib=16) as server,
        watched_tab(browser, server.http_url) as tab,
    ):
        page = tab.open()
        build(page, "photos", files)
        expect(page.get_by_text("Scaling large images down")).to_be_visible()
        expect(page.get_by_label("Compare with the reference")).to_have_value("photos")
        answer = requests.get(f"{server.http_url}/v1/references/photos", timeout=60).json()
        assert [(image["width_px"], image["media_type"]) for image in answer["images"]] == [(1600, "image/jpeg")] * 2


def test_a_server_that_is_not_ready_is_asked_again(tab: Tab) -> None:
    tab.expected |= {"status of 503", "ERR_FAILED"}
    answers = iter(["not ready", "no connection"])

    def answer(route: Route) -> None:
        match next(answers, None):
            case "not ready":
                route.fulfill(status=503, json={"code": 14, "message": "The server is starting.", "details": []})
            case "no connection":
                route.abort()
            case _:
                route.continue_()

    tab.page.route("**/v1/server", answer)
    page = tab.open()
    expect(page.get_by_text("The server is starting.")).to_be_visible()
    expect(page.get_by_text("There is no connection to the server.").first).to_be_visible()
    expect(page.get_by_label("Name of the reference")).to_be_visible()
    expect(page.locator("#connection")).to_be_hidden()
