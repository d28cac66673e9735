"""The progress of a scan on stderr: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from patchserve_client.cli._output import print_note

if TYPE_CHECKING:
    from patchserve_server.scan.counts import Counts

LINE_EVERY_S: Final = 30.0
_BAR_EVERY_S: Final = 0.2
_RATE_OVER_S: Final = 120.0  # a rate of the last minutes: later images may be larger
_UNITS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


class ScanProgress:
    """Implements `patchserve_server.scan.progress.Progress`. The bar is gone when the block ends."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._resources = ExitStack()
        self._total = self._done = self._anomalous = self._failed = 0
        self._shown_s = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque()  # (time, images that are done)

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 - imported only if it is shown
            from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - as above

            columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
            bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
            self._bar = self._resources.enter_context(bar)
            self._task = bar.add_task("", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def text_of_end(self) -> str:
        """As in ": 1,280 of 2,000 images are inspected"; empty: it was not known yet how many there are."""
        return f": {self._done:,} of {self._total:,} images are inspected" if self._total else ""

    def listing(self, image_count: int) -> None:
        self._show(lambda: f"Listing: {image_count:,} images so far")

    def planned(self, image_count: int, done: Counts) -> None:
        self._total, self._done = image_count, done.image_count
        self._anomalous, self._failed = done.anomalous, done.failed_count
        earlier = f", {self._done:,} of them inspected earlier" if self._done else ""
        print_note(f"{image_count:,} images{earlier}")

    def opening(self) -> None:
        self._show(lambda: "Opening the engine", at_once=True)

    def images_done(self, count: int) -> None:
        if not self._samples:
            self._samples.append((time.monotonic(), self._done))
        self._done += count
        self._show(self._line)

    def part_done(self, counts: Counts) -> None:
        self._anomalous += counts.anomalous
        self._failed += counts.failed_count
        self._show(self._line)

    def _show(self, text: Callable[[], str], *, at_once: bool = False) -> None:
        now_s = time.monotonic()
        if not at_once and now_s - self._shown_s < (LINE_EVERY_S if self._bar is None else _BAR_EVERY_S):
            return
        self._shown_s = now_s
        if self._bar is None:
            print_note(text())
        else:
            self._bar.update(self._task, description=text(), completed=self._done, total=self._total or None)
            self._bar.refresh()

    def _line(self) -> str:
        found = f"{self._anomalous:,} anomalous, {self._failed:,} failed"
        return f"{self._done:,} of {self._total:,} images, {self._speed()}{found}"

    def _speed(self) -> str:
        """As in "41.2 images/s, 6 h 40 min left, "; empty as long as it is not known."""
        now_s = time.monotonic()
        self._samples.append((now_s, self._done))
        while now_s - self._samples[0][0] > _RATE_OVER_S and len(self._samples) > 2:  # noqa: PLR2004 - two have a rate
            self._samples.popleft()
        began_s, done = self._samples[0]
        if now_s <= began_s or self._done == done:
            return ""
        per_s = (self._done - done) / (now_s - began_s)
        return f"{per_s:,.1f} images/s, {duration((self._total - self._done) / per_s)} left, "


def duration(seconds: float) -> str:
    """As in 6 h 40 min."""
    for unit_s, unit, part_s, part in _UNITS:
        if seconds >= unit_s:
            count, rest = divmod(round(seconds / part_s), unit_s // part_s)
            return f"{count} {unit} {rest} {part}" if rest else f"{count} {unit}"
    return f"{seconds:.0f} s"
