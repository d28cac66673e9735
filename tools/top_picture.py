"""Draws docs/images/top.png: `patchserve top` on two servers, one of them away.

    python tools/top_picture.py HOST:PORT HOST:PORT

The first server must be running and busy, with `patchserve bench` for example.
"""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console

from patchserve_client import AsyncClient
from patchserve_client.cli._top_screen import drawn
from patchserve_client.top.watched_server import Sample, WatchedServer

FILE = Path(__file__).resolve().parents[1] / "docs" / "images" / "top.png"
INTERVAL_S = 2.0
LOOKS = 6
WIDTH = 132


def main() -> None:
    console = Console(width=WIDTH, height=24, record=True, file=io.StringIO(), force_terminal=True)
    console.print(drawn(asyncio.run(look(sys.argv[1:])), WIDTH, 24))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 700})
        page.set_content(console.export_svg(title="patchserve top"))
        page.locator("svg").screenshot(path=FILE)
        browser.close()


async def look(addresses: list[str]) -> list[Sample]:
    """What each server has done during the last looks."""
    servers = [WatchedServer(address, AsyncClient(address), LOOKS) for address in addresses]
    for _ in range(LOOKS):
        samples = [await server.sample(INTERVAL_S) for server in servers]
        await asyncio.sleep(INTERVAL_S)
    for server in servers:
        await server.client.close()
    return samples


if __name__ == "__main__":
    main()
