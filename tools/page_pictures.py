"""Writes the pictures of the page in docs/images: the sample parcels on all three screens, in a real Chromium.

    make page-pictures [ARGS=FOLDER]

Into another folder it writes every screen: on a desktop and on a phone, light and dark.
"""

from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path
from typing import Any

from browser.screens import PARCELS, REPO, build
from browser.tabs import PHONE, Tab, chromium, watched_tab
from e2e.in_process import running_server
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect

from patchserve_client import Client

DOCS = REPO / "docs" / "images"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 900}, "device_scale_factor": 1.25}
DAMAGED = [PARCELS / "test" / kind / "000.jpg" for kind in ("tear", "stain", "puncture", "crushed_corner")]
INTACT = sorted((PARCELS / "test" / "good").iterdir())


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser, running_server(backbone="efficientnet_lite2") as server:
        with Client(server.address) as client, watched_tab(browser, server.http_url, **DESKTOP) as tab:
            if folder != DOCS:
                save_first_screens(browser, server.http_url, folder)
            build(tab.open(), "parcels", sorted((PARCELS / "train" / "good").iterdir()))
            expect(tab.page.get_by_label("Compare with the reference")).to_have_value("parcels")
            save_screens(tab, client, folder, "page")
        if folder == DOCS:
            return
        for (device, options), scheme in itertools.product((("desktop", DESKTOP), ("phone", PHONE)), ("light", "dark")):
            with (
                Client(server.address) as client,
                watched_tab(browser, server.http_url, color_scheme=scheme, **options) as tab,
            ):
                save_screens(tab, client, folder, f"{device}-{scheme}")


def save_first_screens(browser: Browser, url: str, folder: Path) -> None:
    for name, options in (("desktop", DESKTOP), ("phone", PHONE)):
        with watched_tab(browser, url, **options) as tab:
            expect(tab.open().get_by_label("Name of the reference")).to_be_visible()
            save(tab.page, folder / f"{name}-first.png")


def save_screens(tab: Tab, client: Client, folder: Path, prefix: str) -> None:
    """Inspects parcels on Try it, looks at their reference, and watches others being inspected over gRPC."""
    page = tab.open("try/parcels")
    page.locator("#images").set_input_files([named_file(path) for path in (*DAMAGED, *INTACT)])
    expect(page.get_by_role("heading", name="8 images, 4 anomalous")).to_be_visible()
    page.locator(".item").nth(0).click()
    expect(page.locator(".picture img").first).to_have_js_property("complete", value=True)
    save(page, folder / f"{prefix}-try-it.png")
    tab.open("reference/parcels")
    page.locator(".grid img").last.scroll_into_view_if_needed()
    expect(page.locator(".grid img").last).to_have_js_property("naturalWidth", 320)
    page.evaluate("scrollTo(0, 0)")
    page.get_by_label("Sensitivity", exact=True).fill("-13")
    page.evaluate("document.activeElement.blur()")
    expect(page.get_by_text("recent images would be anomalous")).to_be_visible()
    save(page, folder / f"{prefix}-reference.png")
    tab.open("watch")
    expect(page.get_by_text("Live", exact=True).first).to_be_visible()
    for path in [*INTACT, DAMAGED[0], *INTACT, *DAMAGED[1:], *INTACT]:
        client.infer(path, "parcels", image_name=f"{path.parent.name} {path.stem}")
    expect(page.get_by_text("puncture 000").first).to_be_visible()
    page.wait_for_timeout(1500)  # the wall draws twice a second
    save(page, folder / f"{prefix}-watch.png")


def named_file(path: Path) -> FilePayload:
    """An image of the samples, named after its folder too."""
    return {"name": f"{path.parent.name}-{path.name}", "mimeType": "image/jpeg", "buffer": path.read_bytes()}


def save(page: Page, path: Path) -> None:
    """What a window shows, for the docs; else the whole screen."""
    data = page.screenshot(full_page=path.parent != DOCS, animations="disabled", caret="hide")
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    if path.parent == DOCS:
        picture.save(path.with_suffix(".jpg"), quality=82, optimize=True, progressive=True)
    else:
        picture.save(path)


if __name__ == "__main__":
    main()
