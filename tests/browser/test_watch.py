"""The screen Watch, in a real Chromium."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from browser.screens import load_gray, width_beyond_the_window
from browser.tabs import PHONE, Tab, watched_tab
from browser.test_accessibility import serious
from e2e.harness import Stub, connect
from e2e.in_process import RunningServer, running_server
from e2e.streaming import Feed, Request, config
from fakes.event_stream import EventStream, events
from fakes.gray import gray_png
from fakes.waiting import wait_until
from playwright.sync_api import Browser, Page, Route, expect

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_server.serving.wall import kept_images

ANOMALOUS, INTACT = 130, 105  # 1.50 x and 0.25 x the threshold of the reference
GRAY = "gray"
HOSTILE = '<img src=x onerror="console.error(1)">'


class Belt:
    """A stream of frames over gRPC."""

    def __init__(self, stub: Stub, reference_id: str) -> None:
        self._feed = Feed(config(reference_id))
        self._responses = stub.InferStream(iter(self._feed))
        assert next(self._responses).HasField("ready")

    def inspect(self, level: int, name: str = "frame") -> inference_pb2.InferResponse:
        """Sends a frame and waits for its result."""
        return self.send(gray_png(level), name).response

    def send(self, image: bytes, name: str) -> stream_pb2.FrameResult:
        """Sends what may be no image, and waits for its result."""
        self._feed.send(Request(frame=stream_pb2.Frame(frame_id=name, image=image)))
        while not (response := next(self._responses)).HasField("result"):
            pass
        return response.result

    def close(self) -> None:
        self._feed.close()


@contextmanager
def belt(server: RunningServer, reference_id: str = GRAY) -> Iterator[Belt]:
    with connect(server.address) as stub:
        opened = Belt(stub, reference_id)
        try:
            yield opened
        finally:
            opened.close()


def infer(server: RunningServer, level: int, name: str, reference_id: str = GRAY) -> None:
    with connect(server.address) as stub:
        stub.Infer(inference_pb2.InferRequest(reference_id=reference_id, image=gray_png(level), image_name=name))


@pytest.fixture(autouse=True)
def reference(server: RunningServer) -> None:
    """The reference `gray`, of one image: adding another one changes its scores."""
    load_gray(server.address, images=1)


def watch(tab: Tab, screen: str = "watch") -> Page:
    """Opens the screen and waits until it watches."""
    page = tab.open(screen)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    return page


def test_a_stream_is_seen_live(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    expect(page.get_by_text("Nothing has been inspected")).to_be_visible()
    with belt(server) as stream:
        stream.inspect(INTACT, "f1")
        stream.inspect(ANOMALOUS, "f2")
        tiles = page.locator(".wall-grid .wall-tile")
        expect(tiles).to_have_count(2)
        expect(tiles.first).to_contain_text("Anomalous: 1.50 x the threshold. gray, f2")
        expect(tiles.last).to_contain_text("Intact: 0.25 x the threshold. gray, f1")
        expect(tiles.first.locator("img")).to_have_js_property("complete", value=True)
        chart = page.get_by_role("region", name="Scores of gray")
        expect(chart.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile(r"^2 images in the last 5 minutes, 1 of them above the threshold")
        )
        expect(chart).to_contain_text("last 1.50 x")
        expect(page.locator(".wall-numbers")).to_contain_text("1 of 2")
        expect(page.get_by_role("status").filter(has_text="Anomalous: f2, 1.50 x")).to_have_count(1)
        expect(page.get_by_text("Nothing has been inspected")).to_be_hidden()


def test_a_false_alarm_becomes_an_image_of_the_reference_and_can_be_undone(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    with belt(server) as stream:
        assert stream.inspect(ANOMALOUS, "f1").anomaly.is_anomalous
        assert stream.inspect(ANOMALOUS + 2, "f2").anomaly.is_anomalous
        stream.inspect(INTACT, "f3")
        expect(page.get_by_text("will count as undamaged. You can undo it.").first).to_be_visible()
        page.get_by_role("button", name="This is fine: f1").click()
        expect(page.get_by_text("f1 is now an image of gray, which has 2 images.")).to_be_visible()
        effect = page.locator(".wall-effect")
        expect(effect).to_contain_text("This image counts as intact now: 0.75 x, before 1.50 x.")
        expect(effect).to_contain_text(
            "The other anomaly kept here would count as intact too. If one of them is damaged"
        )
        expect(effect).to_contain_text("The last intact image would stay intact.")
        expect(page.get_by_text("Now: intact, 0.85 x")).to_be_visible()
        expect(page.get_by_text("A stream that is open keeps the reference that it began with")).to_be_visible()
        assert stream.inspect(ANOMALOUS).anomaly.is_anomalous, "as the page says"
    with belt(server) as stream:
        assert not stream.inspect(ANOMALOUS, "f4").anomaly.is_anomalous
        expect(page.locator(".wall-grid").get_by_text("Intact: 0.75 x the threshold. gray, f4")).to_be_attached()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone: gray is as it was, with 1 image.").first).to_be_visible()
    expect(page.get_by_text("Now: intact")).to_have_count(0)
    with belt(server) as stream:
        assert stream.inspect(ANOMALOUS, "f5").anomaly.is_anomalous
    with connect(server.address) as stub:
        answer = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id=GRAY))
    assert answer.reference.image_count == 1


def test_the_name_of_the_image_stays_with_the_reference(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    infer(server, ANOMALOUS, "box 7.png")
    page.get_by_role("button", name="Look at box 7.png").click()
    look = page.get_by_role("dialog")
    expect(look.get_by_role("heading", name="Anomalous: 1.50 x the threshold")).to_be_visible()
    expect(look.locator(".outlines polygon").first).to_be_attached()
    expect(look).to_contain_text("peer ipv4:127.0.0.1")
    expect(look).to_contain_text("a single image")
    look.get_by_role("button", name="This is fine").click()
    expect(page.get_by_text("box 7.png is now an image of gray")).to_be_visible()
    with connect(server.address) as stub:
        answer = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id=GRAY))
    assert answer.images[-1].name == "box 7.png"


def test_when_somebody_else_changes_the_reference_nothing_is_added_without_asking_again(
    tab: Tab, server: RunningServer
) -> None:
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")

    def change_first(route: Route) -> None:
        load_gray(server.address, images=3)
        route.continue_()

    page.route("**/*:load", change_first, times=1)
    tab.expected.add("status of 400")
    page.get_by_role("button", name="This is fine: a.png").click()
    expect(
        page.get_by_text("Somebody else has just changed gray: it has 3 images now. Nothing was added.")
    ).to_be_visible()
    page.get_by_role("button", name="Add it").click()
    expect(page.get_by_text("a.png is now an image of gray, which has 4 images.")).to_be_visible()


def test_what_was_changed_again_can_no_longer_be_undone(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")
    page.get_by_role("button", name="This is fine: a.png").click()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    load_gray(server.address, images=2)
    expect(page.get_by_text("gray was changed again, so this can no longer be undone here.")).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_events_of_earlier_changes_do_not_hide_the_answer_to_a_later_one(tab: Tab) -> None:
    revisions = watch(tab).evaluate(
        """async () => {
            const { WallState } = await import("/page/wall_state.js");
            const state = new WallState();
            const hear = (revision) => state.update({
                changes: [{ reference_id: "gray", revision, image_count: 1 }], tiles: [], failures: [],
                inspected: 0, failed: 0, refused: 0, not_shown: 0,
            });
            const seen = [];
            const look = () => seen.push(state.references.get("gray").revision);
            hear("a");
            const take = state.awaitAnswer("gray");
            take({ revision: "c", imageCount: 1 });
            for (const revision of ["b", "c", "d"]) { hear(revision); look(); }
            const takeLate = state.awaitAnswer("gray");
            for (const revision of ["e", "f"]) hear(revision);
            takeLate({ revision: "e", imageCount: 1 });
            look();
            return seen;
        }"""
    )
    assert revisions == ["c", "c", "d", "f"]


def test_an_image_that_is_still_above_the_threshold_needs_a_lower_sensitivity(tab: Tab, server: RunningServer) -> None:
    with connect(server.address) as stub:
        stub.TuneReference(reference_pb2.TuneReferenceRequest(reference_id=GRAY, sensitivity=2))
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")
    infer(server, ANOMALOUS + 10, "b.png")
    page.get_by_role("button", name="This is fine: a.png").click()
    effect = page.locator(".wall-effect")
    expect(effect).to_contain_text("This image is still above the threshold: 1.50 x, before 3.00 x.")
    offer = (
        "With the sensitivity 1.32 instead of 2.00 it would count as intact, and with it none of the other anomalies"
    )
    expect(page.get_by_text(offer)).to_be_visible()
    page.get_by_role("button", name="Set the sensitivity to 1.32").click()
    expect(page.get_by_text("gray has the sensitivity 1.32 now, and 2 images.")).to_be_visible()
    expect(effect).to_contain_text("This image counts as intact now: 0.99 x, before 3.00 x.")
    expect(effect).to_contain_text("The other anomaly kept here would stay one.")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone: gray is as it was, with 2 images.").first).to_be_visible()
    with connect(server.address) as stub:
        answer = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id=GRAY))
    assert answer.reference.sensitivity == 2


def test_verdicts_that_an_earlier_change_made_are_not_blamed_on_the_false_alarm(
    tab: Tab, server: RunningServer
) -> None:
    page = watch(tab)
    infer(server, 85, "intact.png")  # 0.75 x
    expect(page.locator(".wall-grid").get_by_text("gray, intact.png")).to_be_attached()
    with connect(server.address) as stub:  # intact.png would be anomalous from now on
        stub.TuneReference(reference_pb2.TuneReferenceRequest(reference_id=GRAY, sensitivity=2))
    infer(server, ANOMALOUS, "a.png")
    page.get_by_role("button", name="This is fine: a.png").click()
    effect = page.locator(".wall-effect")
    expect(effect).to_contain_text("This image is still above the threshold")
    expect(effect).not_to_contain_text("intact image")


def test_an_undo_that_fails_can_be_tried_again(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")
    page.get_by_role("button", name="This is fine: a.png").click()
    expect(page.locator(".wall-effect")).to_contain_text("counts as intact now")
    page.route("**/*:restore", lambda route: route.fulfill(status=503, json={"message": "Not now."}), times=1)
    tab.expected.add("status of 503")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("alert").filter(has_text="Not undone: Not now.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone: gray is as it was, with 1 image.").first).to_be_visible()


def test_an_image_that_is_not_kept_cannot_be_added_and_the_page_says_why(
    tab: Tab, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_images, "_LARGEST_SHARE", 0.0)
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")
    press = page.get_by_role("button", name="This is fine: a.png")
    expect(press).to_be_disabled()
    expect(press).to_have_attribute("title", re.compile("The server has not kept this image"))
    page.get_by_role("button", name="Look at a.png").click()
    expect(page.get_by_role("dialog")).to_contain_text("The server has not kept this image")


def test_an_image_that_is_gone_when_the_button_is_pressed(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")
    page.route("**/watch/images/*", lambda route: route.continue_(url=f"{server.http_url}/watch/images/gone"))
    tab.expected.add("status of 404")
    page.get_by_role("button", name="This is fine: a.png").click()
    expect(page.get_by_role("alert").filter(has_text="This image is no longer kept.")).to_be_visible()
    expect(page.get_by_role("button", name="This is fine: a.png")).to_be_disabled()


def test_pause_and_continue(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")
    tiles = page.locator(".wall-grid .wall-tile")
    expect(tiles).to_have_count(1)
    page.get_by_role("button", name="Pause").click()
    infer(server, ANOMALOUS, "b.png")
    expect(page.get_by_text("Paused, 1 image since")).to_be_visible()
    expect(tiles).to_have_count(1)
    page.get_by_role("button", name="Continue").click()
    expect(tiles).to_have_count(2)


def test_filters(tab: Tab, server: RunningServer) -> None:
    load_gray(server.address, "other", images=1)
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")
    infer(server, INTACT, "b.png")
    infer(server, ANOMALOUS, "c.png", "other")
    tiles = page.locator(".wall-grid .wall-tile")
    expect(tiles).to_have_count(3)
    page.get_by_label("Anomalous only").check()
    expect(tiles).to_have_count(2)
    page.get_by_label("Reference", exact=True).select_option("other")
    expect(page).to_have_url(re.compile("#/watch/other$"))
    expect(tiles).to_have_count(1)
    expect(tiles).to_contain_text("other, c.png")
    expect(page.get_by_role("region", name="Scores of gray")).to_have_count(0)
    infer(server, ANOMALOUS, "d.png")
    infer(server, ANOMALOUS, "e.png", "other")
    expect(tiles).to_have_count(2)
    page.get_by_label("Reference", exact=True).select_option("")
    page.get_by_role("button", name="gray", exact=True).click()
    expect(page).to_have_url(re.compile("#/watch/gray$"))


def test_hostile_names_are_text(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    with belt(server) as stream:
        stream.inspect(ANOMALOUS, HOSTILE)
    expect(page.locator(".wall-anomaly").get_by_text(HOSTILE)).to_be_visible()
    page.get_by_role("button", name=f"Look at {HOSTILE}").click()
    expect(page.get_by_role("dialog").get_by_role("heading", name=HOSTILE)).to_be_visible()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name=f"This is fine: {HOSTILE}").click()
    expect(page.get_by_text(f"{HOSTILE} is now an image of gray")).to_be_visible()
    tab.expected.add("status of 400")
    page = tab.open(f"watch/{HOSTILE.replace('/', '')}")
    expect(page.get_by_role("alert").filter(has_text="A reference_id is 1 to 64 of the characters")).to_be_visible()
    assert page.locator("img[onerror]").count() == 0


def test_images_that_fail_are_listed_with_the_reason(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    with belt(server) as stream:
        assert stream.send(b"no image", "f1").HasField("error")
    page.get_by_text("1 image could not be inspected").click()
    expect(page.get_by_text("f1 (gray, peer ipv4:127.0.0.1")).to_contain_text("The bytes are not a")


def test_two_watchers_see_the_same_and_one_too_many_reads_why(
    browser: Browser, tab: Tab, server: RunningServer
) -> None:
    page = watch(tab)
    with watched_tab(browser, server.http_url) as second:
        other = watch(second)
        infer(server, ANOMALOUS, "a.png")
        for each in (page, other):
            expect(each.get_by_role("button", name="This is fine: a.png")).to_be_visible()
        other.get_by_role("button", name="This is fine: a.png").click()
        expect(other.get_by_text("a.png is now an image of gray")).to_be_visible()
    with ExitStack() as stack:
        others: list[EventStream] = []

        def joins() -> bool:
            with suppress(AssertionError):  # the second watcher may still be leaving
                others.append(stack.enter_context(events(f"{server.http_url}/watch/events")))
                return True
            return False

        for _ in range(7):
            wait_until(joins)
        for wall in others:
            wall.next("snapshot")
        with watched_tab(browser, server.http_url) as ninth:
            ninth.expected.add("status of 429")
            refused = ninth.open("watch")
            expect(refused.get_by_role("alert")).to_contain_text("8 watchers are watching, the most")
            expect(refused.get_by_text("Not watching")).to_be_visible()
            stack.close()
            expect(refused.get_by_text("Live", exact=True)).to_be_visible()  # by itself


def test_when_the_server_restarts_the_page_connects_again(browser: Browser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with watched_tab(browser, f"http://127.0.0.1:{port}") as tab:
        tab.expected |= {"ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "status of 503"}
        with running_server(http_port=port) as first:
            load_gray(first.address, images=1)
            page = watch(tab)
            infer(first, ANOMALOUS, "a.png")
            expect(page.get_by_role("button", name="This is fine: a.png")).to_be_enabled()
        expect(page.locator(".wall-status")).to_have_text(re.compile("No connection|Not watching"))
        with running_server(http_port=port) as second:
            load_gray(second.address, images=1)
            expect(page.get_by_text("Live", exact=True)).to_be_visible()
            expect(page.get_by_role("button", name="This is fine: a.png")).to_be_disabled()
            infer(second, ANOMALOUS, "b.png")
            expect(page.get_by_role("button", name="This is fine: b.png")).to_be_enabled()


def test_it_fits_a_phone(browser: Browser, server: RunningServer) -> None:
    with watched_tab(browser, server.http_url, **PHONE) as tab:
        page = watch(tab)
        for number in range(6):
            infer(server, ANOMALOUS, f"a rather long name of an image, number {number}.png")
        expect(page.locator(".wall-anomaly")).to_have_count(6)
        assert width_beyond_the_window(page) == 0
        page.locator(".wall-anomaly .wall-tile").first.click()
        expect(page.get_by_role("dialog").get_by_role("heading", name="Anomalous: 1.50 x")).to_be_visible()
        assert width_beyond_the_window(page) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_no_serious_findings_of_axe(browser: Browser, server: RunningServer, scheme: Any) -> None:
    with watched_tab(browser, server.http_url, color_scheme=scheme, reduced_motion="reduce") as tab:
        page = watch(tab)
        infer(server, ANOMALOUS, "a.png")
        infer(server, INTACT, "b.png")
        with belt(server) as stream:
            stream.send(b"no image", "f1")
        page.get_by_text("1 image could not be inspected").click()
        findings = serious(page)
        page.get_by_role("button", name="Look at a.png").click()
        expect(page.get_by_role("dialog").get_by_role("heading", name="Anomalous: 1.50 x")).to_be_visible()
        findings += serious(page)
        page.get_by_role("dialog").get_by_role("button", name="This is fine").click()
        expect(page.locator(".wall-effect")).to_contain_text("counts as intact now")
        assert findings + serious(page) == []


def test_everything_can_be_reached_with_the_keyboard(tab: Tab, server: RunningServer) -> None:
    page = watch(tab)
    infer(server, ANOMALOUS, "a.png")
    look = page.get_by_role("button", name="Look at a.png")
    look.focus()
    look.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(look).to_be_focused()
    infer(server, ANOMALOUS, "b.png")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # This is fine
    expect(page.get_by_text("a.png is now an image of gray")).to_be_visible()
    expect(page.locator(".wall-report")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
