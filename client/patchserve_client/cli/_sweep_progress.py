"""The progress of a sweep: a line for each setting that ends, and on a terminal a bar with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from patchserve_client.cli._output import print_note
from patchserve_client.evaluation import Failure, Outcome, Setting, Sweep

_MINUTE_S, _HOUR_S = 60, 3600
_SIDE_PX = 224


@dataclass(frozen=True, slots=True)
class Work:
    """What a setting takes: how many images are sent, and how much each costs compared with others."""

    images: int
    weight: float

    @classmethod
    def of(cls, sweep: Sweep, setting: Setting) -> Work:
        """The cost of an image grows with its area."""
        side_px = setting.input_px if isinstance(setting.input_px, int) else _SIDE_PX
        return cls(sweep.image_count(setting), (side_px / _SIDE_PX) ** 2)

    @property
    def cost(self) -> float:
        return self.images * self.weight


class SweepProgress:
    """Knows what is still to be done, and how long it takes."""

    def __init__(self, works: Sequence[Work], moved: Callable[[str, float], None]) -> None:
        """`works` are those of the settings; `moved` shows a label and the cost that is done."""
        self._works = works
        self._moved = moved
        self._number = 0  # of settings that ended
        self._sent = 0  # images of the setting that runs
        self._started_s = self._ended_s = time.monotonic()

    def step(self) -> None:
        """An image was sent."""
        self._sent += 1
        work = self._works[self._number]
        label = f"Setting {self._number + 1} of {len(self._works)}, image {self._sent} of {work.images}"
        self._moved(f"{label}{self.time_left()}", self._done)

    def ended(self, result: Outcome | Failure) -> None:
        """A setting was measured."""
        self._number += 1
        self._sent = 0
        self._ended_s = time.monotonic()
        left = self.time_left() if self._number < len(self._works) else ""
        print_note(f"{self._number} of {len(self._works)}: {result.setting}: {_finding(result)}{left}")

    @property
    def _done(self) -> float:
        sent = self._sent * self._works[self._number].weight if self._sent else 0.0
        return sum(work.cost for work in self._works[: self._number]) + sent

    def time_left(self) -> str:
        """As in ", about 4 min left"; empty while the first setting runs: its images are sent before it is computed."""
        if self._number == 0:
            return ""
        ended = sum(work.cost for work in self._works[: self._number])
        left = sum(work.cost for work in self._works[self._number :])
        seconds = (self._ended_s - self._started_s) / ended * left - (time.monotonic() - self._ended_s)
        for unit_s, unit in ((_HOUR_S, "h"), (_MINUTE_S, "min")):
            if seconds >= 1.5 * unit_s:
                return f", about {seconds / unit_s:.0f} {unit} left"
        return f", about {max(seconds, 0):.0f} s left"


def _finding(result: Outcome | Failure) -> str:
    if isinstance(result, Failure):
        return f"failed: {result.reason}"
    auroc = result.metrics.image_auroc
    measured = "not measured" if auroc is None else f"{auroc:.3f}"
    return f"image AUROC {measured}, {result.image_ms:.1f} ms an image, {result.bank_mib:.1f} MiB"


@contextmanager
def sweep_progress(works: Sequence[Work]) -> Iterator[SweepProgress]:
    """Show the progress until the block ends. `works` are those of the settings."""
    if not sys.stdout.isatty():
        yield SweepProgress(works, lambda _label, _done: None)
        return
    from rich.progress import Progress  # noqa: PLC0415 - imported only if it is shown

    columns = [column for column in Progress.get_default_columns() if type(column).__name__ != "TimeRemainingColumn"]
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("Sweep", total=sum(work.cost for work in works))
        yield SweepProgress(works, lambda label, done: bar.update(task, description=label, completed=done))
