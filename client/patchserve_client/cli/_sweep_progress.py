"""The progress of a sweep: a line for each setting that ends, and on a terminal a bar with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from patchserve_client.cli._output import print_note
from patchserve_client.evaluation import Failure, Outcome

_MINUTE_S, _HOUR_S = 60, 3600


class SweepProgress:
    """Knows how many images are still to be sent, and how long one takes."""

    def __init__(self, images: Sequence[int], moved: Callable[[str, int], None]) -> None:
        """`images` are those of each setting; `moved` shows a label and how many images are done."""
        self._images = images
        self._moved = moved
        self._number = 0  # of settings that ended
        self._sent = 0  # images of the setting that runs
        self._started_s = time.monotonic()

    def step(self) -> None:
        """An image was sent."""
        self._sent += 1
        label = f"Setting {self._number + 1} of {len(self._images)}, {self.time_left()}"
        self._moved(label, min(self._done, sum(self._images)))

    def ended(self, result: Outcome | Failure) -> None:
        """A setting was measured."""
        self._number += 1
        self._sent = 0
        left = f"; {self.time_left()}" if self._number < len(self._images) else ""
        print_note(f"{self._number} of {len(self._images)}: {result.setting}: {_finding(result)}{left}")

    @property
    def _done(self) -> int:
        return sum(self._images[: self._number]) + self._sent

    def time_left(self) -> str:
        """As in "about 4 min left". An image costs what it did so far, so other sizes may take longer."""
        left = sum(self._images) - self._done
        seconds = (time.monotonic() - self._started_s) / max(self._done, 1) * max(left, 0)
        for unit_s, unit in ((_HOUR_S, "h"), (_MINUTE_S, "min")):
            if seconds >= 1.5 * unit_s:
                return f"about {seconds / unit_s:.0f} {unit} left"
        return f"about {seconds:.0f} s left"


def _finding(result: Outcome | Failure) -> str:
    if isinstance(result, Failure):
        return f"failed: {result.reason}"
    auroc = result.metrics.image_auroc
    measured = "not measured" if auroc is None else f"{auroc:.3f}"
    return f"image AUROC {measured}, {result.image_ms:.1f} ms an image, {result.bank_mib:.1f} MiB"


@contextmanager
def sweep_progress(images: Sequence[int]) -> Iterator[SweepProgress]:
    """Show the progress until the block ends. `images`: how many are sent for each setting."""
    if not sys.stdout.isatty():
        yield SweepProgress(images, lambda _label, _done: None)
        return
    from rich.progress import Progress  # noqa: PLC0415 - imported only if it is shown

    columns = [column for column in Progress.get_default_columns() if type(column).__name__ != "TimeRemainingColumn"]
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("Sweep", total=sum(images))
        yield SweepProgress(images, lambda label, done: bar.update(task, description=label, completed=done))
