"""Profile, size and false alarms of a new reference, in a real Chromium."""

from __future__ import annotations

import re

import pytest
from browser.screens import INTACT, NORMAL, build, gray_file, load_gray
from browser.tabs import Tab
from e2e.harness import connect
from e2e.in_process import RunningServer
from fakes.gray import gray_png
from playwright.sync_api import Page, Route, expect

from patchserve.v1.reference_pb2 import (
    ASPECT_RATIO_KEEP,
    REFERENCE_VIEWS_ALL,
    SCORING_PROFILE_NOTEBOOK,
    SCORING_PROFILE_PAPER,
    SCORING_PROFILE_VERDICT,
    CoresetOptions,
    GetReferenceRequest,
    InputOptions,
    LoadReferenceRequest,
    Reference,
    RelativePoint,
    RelativePolygon,
)
from patchserve_server.domain.false_alarm_rate import DEFAULT_FALSE_ALARM_RATE


def loaded(server: RunningServer, reference_id: str) -> Reference:
    with connect(server.address) as stub:
        return stub.GetReference(GetReferenceRequest(reference_id=reference_id)).reference


def built(page: Page, server: RunningServer, reference_id: str) -> Reference:
    """Builds a reference with the form that is open, and returns it."""
    build(page, reference_id, [gray_file(NORMAL)])
    expect(page.get_by_label("Compare with the reference")).to_have_value(reference_id)
    return loaded(server, reference_id)


def test_who_chooses_nothing_gets_the_best_verdict(tab: Tab, server: RunningServer) -> None:
    page = tab.open()
    expect(page.get_by_text("Best verdict, 320 px")).to_be_visible()
    reference = built(page, server, "belt")
    assert reference.profile == SCORING_PROFILE_VERDICT
    assert not reference.HasField("input")
    assert not reference.HasField("false_alarm_rate")


def test_profile_size_and_false_alarms_are_chosen_and_their_cost_is_told(tab: Tab, server: RunningServer) -> None:
    page = tab.open()
    page.get_by_text("Best verdict, 320 px").click()
    expect(page.get_by_text("Takes about 2 times the time and memory of 224 px.")).to_be_visible()
    page.get_by_label("Profile").select_option(label="Exactly the notebook")
    expect(page.get_by_text("Exactly the notebook, 224 px")).to_be_visible()
    page.get_by_label("How large the network sees images").select_option("448")
    expect(page.get_by_text("Takes about 4 times the time and memory of 224 px.")).to_be_visible()
    page.get_by_label("Keep the proportions of the first image").check()
    page.get_by_label("Mirrored and turned copies").select_option(label="All")
    false_alarms = page.get_by_label("False alarms that you accept")
    expect(false_alarms.locator("option").first).to_have_text(f"As usual: {100 * DEFAULT_FALSE_ALARM_RATE:.0f} %")
    false_alarms.select_option("0.02")
    reference = built(page, server, "board")
    assert reference.profile == SCORING_PROFILE_NOTEBOOK
    assert reference.input == InputOptions(longer_side_px=448, aspect=ASPECT_RATIO_KEEP)
    assert reference.false_alarm_rate == 0.02
    assert reference.views == REFERENCE_VIEWS_ALL
    cost = re.compile(r"Inspecting an image takes about [\d.]+ ms \([\d,]+ patches\), the reference .+ of memory\.")
    expect(page.get_by_text(cost)).to_be_visible()
    told, columns = page.get_by_text(cost).bounding_box(), page.locator(".columns.try").bounding_box()
    assert told is not None
    assert columns is not None
    assert columns["y"] - (told["y"] + told["height"]) >= 16  # the notice does not touch what is below it
    page.get_by_role("link", name="Show its images and threshold").click()
    expect(
        page.get_by_text(f"{reference.input_width_px} x {reference.input_height_px} px", exact=False)
    ).to_be_visible()
    expect(page.get_by_role("definition").filter(has_text="Exactly the notebook")).to_be_visible()


def test_tiles_are_for_large_images_and_keep_their_proportions(tab: Tab, server: RunningServer) -> None:
    page = tab.open()
    page.get_by_text("Best verdict, 320 px").click()
    page.get_by_label("How large the network sees images").select_option("tiles")
    expect(page.get_by_text(re.compile("an image of 12 megapixels takes about 400 times as long"))).to_be_visible()
    expect(page.get_by_label("Keep the proportions of the first image")).to_be_checked()
    reference = built(page, server, "large")
    assert (reference.input.tile_px, reference.input.aspect) == (448, ASPECT_RATIO_KEEP)


def test_who_replaces_all_images_keeps_the_choices_of_the_reference(tab: Tab, server: RunningServer) -> None:
    own_input = InputOptions(longer_side_px=500, aspect=ASPECT_RATIO_KEEP)
    request = LoadReferenceRequest(
        reference_id="belt",
        images=[gray_png(NORMAL), gray_png(NORMAL + 1)],
        profile=SCORING_PROFILE_PAPER,
        input=own_input,
        false_alarm_rate=0.03,
    )
    with connect(server.address) as stub:
        stub.LoadReference(request)
    page = tab.open("reference/belt")
    page.get_by_role("button", name="Replace all").click()
    page.get_by_role("button", name="Choose new images").click()
    expect(page.get_by_text("The paper, 500 px")).to_be_visible()
    page.locator("#reference-images").set_input_files([gray_file(NORMAL)])
    page.get_by_role("button", name="Replace all images").click()
    expect(page.get_by_text("The images are replaced.")).to_be_visible()
    replaced = loaded(server, "belt")
    assert (replaced.image_count, replaced.profile) == (1, SCORING_PROFILE_PAPER)
    assert replaced.input == own_input
    assert replaced.false_alarm_rate == request.false_alarm_rate


ALL_OPTIONS = LoadReferenceRequest(
    images=[gray_png(NORMAL), gray_png(NORMAL + 1)],
    profile=SCORING_PROFILE_VERDICT,
    input=InputOptions(longer_side_px=2000, aspect=ASPECT_RATIO_KEEP, tile_px=320, tile_overlap=0.375),
    coreset=CoresetOptions(max_patches=500),
    search_radius=0.02,
    region_of_interest=[
        RelativePolygon(points=[RelativePoint(x=x, y=y) for x, y in ((0.1, 0.0), (0.9, 0.0), (0.9, 1.0))])
    ],
    false_alarm_rate=0.03,
    white_level=4095,
    sensitivity=1.5,
)
OTHERS = LoadReferenceRequest(
    images=[gray_png(NORMAL)],
    input=InputOptions(auto=True),
    coreset=CoresetOptions(ratio=0.25),
    approximate_search=True,
    scales=2,
)
_KEPT = ("profile", "input", "coreset", "search_radius", "approximate_search", "views", "scales", "false_alarm_rate")


@pytest.mark.parametrize("asked", [ALL_OPTIONS, OTHERS], ids=["tiles", "copies"])
def test_who_replaces_all_images_keeps_every_option(
    tab: Tab, server: RunningServer, asked: LoadReferenceRequest
) -> None:
    with connect(server.address) as stub:
        before = stub.LoadReference(asked).reference
    replaced = replace_all(tab, server)
    assert replaced.revision != before.revision
    for name in (*_KEPT, "region_of_interest", "white_level", "sensitivity"):
        assert getattr(replaced, name) == getattr(before, name), name
    fields = {field.name for field in LoadReferenceRequest.DESCRIPTOR.fields}
    not_options = {"reference_id", "images", "mode", "expected_revision", "image_names"}
    assert fields - not_options == {*_KEPT, "region_of_interest", "white_level", "sensitivity"}, "a new option"


def test_options_that_the_page_cannot_choose_can_be_left_out(tab: Tab, server: RunningServer) -> None:
    with connect(server.address) as stub:
        stub.LoadReference(OTHERS)
    replaced = replace_all(tab, server, leave_out="a coreset of 25 %, approximate search, 2 sizes of the items")
    assert not replaced.HasField("coreset")
    assert (replaced.approximate_search, replaced.scales) == (False, 1)
    assert replaced.input.auto


def replace_all(tab: Tab, server: RunningServer, leave_out: str = "") -> Reference:
    page = tab.open("reference/default")
    page.get_by_role("button", name="Replace all").click()
    page.get_by_role("button", name="Choose new images").click()
    if leave_out:
        page.locator("summary", has_text="Profile and size").click()
        page.get_by_label(f"Keep its other options: {leave_out}").uncheck()
    page.locator("#reference-images").set_input_files([gray_file(INTACT)])
    page.get_by_role("button", name="Replace all images").click()
    expect(page.get_by_text("The images are replaced.")).to_be_visible()
    return loaded(server, "default")


def test_a_rate_that_the_images_do_not_show_is_told(tab: Tab, server: RunningServer) -> None:
    page = tab.open()
    page.get_by_text("Best verdict, 320 px").click()
    page.get_by_label("False alarms that you accept").select_option("0.02")
    built(page, server, "belt")
    expect(page.get_by_text("1 image cannot tell how often other items are called anomalous")).to_be_visible()
    answers = {
        0.02: "8 images alone show no rate below 11 %. 2 % is extrapolated",
        0.001: "0.1 % is far beyond that, so the threshold is a guess: 10.0 times their highest score.",
        0.2: "At most 50 %, with a confidence of 95 %",
    }
    rates: list[float] = []
    tab.page.route("**/v1/references/belt", lambda route: answer_with(route, rates[-1]))
    for rate, words in answers.items():
        rates.append(rate)
        page = tab.open("reference/belt")
        expect(page.get_by_text(words)).to_be_visible()


def answer_with(route: Route, rate: float) -> None:
    """A reference of 8 images with this requested rate, and a threshold of 10 times the highest score."""
    response = route.fetch()
    content = response.json()
    reference = content["reference"]
    reference |= {"image_count": 8, "false_alarm_rate": rate}
    scores = [float(number) for number in range(1, 9)]
    reference["calibration"] |= {
        "method": "CALIBRATION_METHOD_LEAVE_ONE_OUT",
        "image_threshold": 80.0,
        "normal_scores": {"count": 8, "min": 1, "mean": 4.5, "stddev": 2.3, "max": 8, "scores": scores},
        "false_alarm_rate": rate,
        "false_alarm_rate_upper": 0.5,
    }
    route.fulfill(response=response, json=content)


def test_who_adds_images_is_not_asked(tab: Tab, server: RunningServer) -> None:
    load_gray(server.address)
    page = tab.open("reference/gray")
    page.get_by_role("button", name="Add images").click()
    expect(page.get_by_role("button", name="Add these images")).to_be_visible()
    expect(page.get_by_label("Profile")).to_have_count(0)
