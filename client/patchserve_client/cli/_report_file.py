"""The file of `patchserve evaluate --report`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from patchserve_client.evaluation import Page


def write_page(page: Page, path: Path) -> None:
    """Write a page of HTML.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(page.html(datetime.now().astimezone()), encoding="utf-8")
