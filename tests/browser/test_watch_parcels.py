"""The wall with real images: parcels on a belt, a false alarm, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

from browser.screens import PARCELS
from browser.tabs import watched_tab
from e2e.in_process import running_server
from playwright.sync_api import Browser, expect

from patchserve_client import AnomalyScore, Client, Frame

DAMAGED = ("tear", "stain", "puncture", "crushed_corner")
SENSITIVITY = 1.1  # so high that an intact parcel is a false alarm


def frames() -> list[Frame]:
    """Every kind of damage once, between intact parcels."""
    intact = sorted((PARCELS / "test" / "good").iterdir())
    damaged = [PARCELS / "test" / kind / "000.jpg" for kind in DAMAGED]
    paths = [path for pair in zip(intact, damaged, strict=False) for path in pair]
    return [Frame(path.read_bytes(), frame_id=name_of(path)) for path in paths]


def name_of(path: Path) -> str:
    return f"{path.parent.name} {path.stem}"


def stream(client: Client) -> dict[str, AnomalyScore]:
    """The verdicts of all frames, by frame id, in a stream of its own."""
    verdicts = {}
    for outcome in client.infer_stream(frames(), "parcels"):
        assert outcome.result is not None, outcome.error
        verdicts[outcome.frame_id] = outcome.result.anomaly
    return verdicts


def test_a_parcel_that_is_a_false_alarm_becomes_an_image_of_the_reference(browser: Browser) -> None:
    with (
        running_server(backbone="efficientnet_lite2") as server,
        Client(server.address) as client,
        watched_tab(browser, server.http_url) as tab,
    ):
        client.load_reference(PARCELS / "train" / "good", "parcels", sensitivity=SENSITIVITY)
        page = tab.open("watch")
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        before = stream(client)
        name = next(name for name, verdict in before.items() if name.startswith("good") and verdict.is_anomalous)
        page.get_by_role("button", name=f"This is fine: {name}").click()
        expect(page.get_by_text(f"{name} is now an image of parcels, which has 9 images.")).to_be_visible()
        expect(page.locator(".wall-effect")).to_contain_text("This image counts as intact now")
        now = stream(client)
        assert not now[name].is_anomalous
        assert all(verdict.is_anomalous for each, verdict in now.items() if not each.startswith("good"))
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_text("Undone: parcels is as it was, with 8 images.").first).to_be_visible()
        assert stream(client)[name].raw_score == before[name].raw_score
