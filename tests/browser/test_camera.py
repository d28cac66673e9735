"""The camera, with Chromium's own fake device, which plays a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.screens import ANOMALOUS, load_gray
from browser.tabs import chromium, watched_tab
from e2e.in_process import RunningServer
from PIL import Image
from playwright.sync_api import Browser, expect


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """With a camera that shows an anomalous gray."""
    folder: Path = tmp_path_factory.mktemp("camera")
    Image.new("RGB", (320, 240), (ANOMALOUS,) * 3).save(folder / "frame.jpg", quality=95)
    (folder / "camera.mjpeg").write_bytes((folder / "frame.jpg").read_bytes())
    with chromium(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={folder / 'camera.mjpeg'}",
    ) as running:
        yield running


def test_one_image_of_the_camera_is_inspected(browser: Browser, server: RunningServer) -> None:
    load_gray(server.address)
    with watched_tab(browser, server.http_url) as tab:
        page = tab.open("try/gray")
        page.get_by_role("button", name="Use the camera").click()
        page.get_by_role("button", name="Inspect one image").click()
        expect(page.get_by_role("heading", name=re.compile(r"Anomalous: 2\.\d\d x the threshold"))).to_be_visible()
        expect(page.get_by_role("button", name=re.compile("camera-1.jpg"))).to_be_visible()
        page.get_by_role("button", name="Close the camera").click()
        expect(page.locator("video")).to_have_count(0)


def test_looking_continuously_shows_the_newest_image_and_stops_with_the_screen(
    browser: Browser, server: RunningServer
) -> None:
    load_gray(server.address)
    with watched_tab(browser, server.http_url) as tab:
        page = tab.open("try/gray")
        page.get_by_role("button", name="Use the camera").click()
        page.get_by_label("Look continuously").check()
        expect(page.locator(".result-name")).to_have_text(re.compile(r"camera-([4-9]|\d\d+)\.jpg"))
        expect(page.get_by_role("heading", name="1 image, 1 anomalous")).to_be_visible()  # the others gave way
        expect(page.locator("#said")).to_have_text(re.compile(r"camera-1\.jpg"))  # one verdict is told once
        page.get_by_role("link", name="Reference", exact=True).click()
        expect(page.get_by_role("heading", name="3 images")).to_be_visible()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.get_by_role("link", name="Watch").click()
        expect(page.get_by_role("heading", name="Watch")).to_be_visible()
        assert not [url for url in asked if url.endswith(":infer")]
