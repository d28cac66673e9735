"""What tests of several screens do in the page, and the images that they give it."""

from __future__ import annotations

from pathlib import Path

from e2e.harness import connect
from fakes.gray import gray_png
from playwright.sync_api import FilePayload, Page, expect

from patchserve.v1.reference_pb2 import LoadReferenceRequest, Reference

NORMAL, INTACT, ANOMALOUS = 100, 110, 150  # gray levels: 0.5 x and 2.5 x the fake detector's threshold
REPO = Path(__file__).resolve().parents[2]
PARCELS = REPO / "samples" / "parcels"


def gray_file(level: int, name: str = "") -> FilePayload:
    """An image of one gray level, as a file that a person chooses."""
    return {"name": name or f"gray-{level}.png", "mimeType": "image/png", "buffer": gray_png(level)}


def broken_file(name: str) -> FilePayload:
    """A file that says it is a PNG, and is none."""
    return {"name": name, "mimeType": "image/png", "buffer": b"none"}


def load_gray(address: str, reference_id: str = "gray", images: int = 3) -> Reference:
    """Loads a reference over gRPC, as other callers of the server do."""
    with connect(address) as stub:
        names = [f"normal-{index}.png" for index in range(images)]
        pngs = [gray_png(NORMAL)] * images
        return stub.LoadReference(
            LoadReferenceRequest(reference_id=reference_id, images=pngs, image_names=names)
        ).reference


def build(page: Page, name: str, files: list[FilePayload] | list[Path]) -> None:
    """Builds a reference with the form that is open."""
    page.get_by_label("Name of the reference").fill(name)
    page.locator("#reference-images").set_input_files(files)
    page.get_by_role("button", name="Build the reference").click()


def inspect(page: Page, *files: FilePayload) -> None:
    """Gives images to inspect, and waits for the verdict on the first."""
    page.locator("#images").set_input_files(list(files))
    expect(page.get_by_role("article")).to_be_visible()


def width_beyond_the_window(page: Page) -> int:
    """How many pixels can be scrolled sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
