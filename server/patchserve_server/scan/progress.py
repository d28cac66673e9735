"""What a scan tells while it runs."""

from __future__ import annotations

from typing import Protocol

from patchserve_server.scan.counts import Counts


class Progress(Protocol):
    """Shows how far a scan is. Called on the thread of the scan."""

    def listing(self, image_count: int) -> None:
        """So many images are found; more may come."""

    def planned(self, image_count: int, done: Counts) -> None:
        """There are so many, of which some were done by an earlier run."""

    def opening(self) -> None:
        """The engine is opened."""

    def images_done(self, count: int) -> None:
        """So many more were inspected. Their part may not be published yet."""

    def part_done(self, counts: Counts) -> None:
        """One more part was published."""
