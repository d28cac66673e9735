"""A closed loop's clock: when it has run for long enough, and how fast it went."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

STAGES = ("queue_ms", "decode_ms", "embed_ms", "search_ms", "render_ms", "total_ms")


@dataclass
class Turns:
    """Answers of a loop that keeps `in_flight` images under way.

    The first turn, `in_flight` answers, warms up. What follows is measured in whole turns: answers come in bursts, a
    batch at a time, and a burst more or less at either end would be an error of several per cent. What is still under
    way when it has been enough is waited for and not measured: by then the load is no longer what it was.
    """

    in_flight: int
    seconds: float  # at least, after the warm-up and for at least one turn
    answered: int = 0  # warm-up and rest included
    done_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    stages: list[Any] = field(default_factory=list)  # the server's own Timing messages
    enough: bool = False

    def record(self, sent_s: float, timing: Any = None) -> None:
        """One answer, now, to what was sent then."""
        now_s = time.perf_counter()
        self.answered += 1
        if self.enough:
            return
        self.done_s.append(now_s)
        self.latencies_ms.append((now_s - sent_s) * 1000)
        if timing is not None:
            self.stages.append(timing)
        measured = len(self.done_s) - self.in_flight
        self.enough = measured >= self.in_flight and now_s - self.done_s[self.in_flight - 1] >= self.seconds

    def found(self) -> dict[str, Any]:
        """What the one who asked is told."""
        first = self.in_flight - 1
        counted = (len(self.done_s) - self.in_flight) // self.in_flight * self.in_flight
        stages = {name: statistics.fmean(getattr(one, name) for one in self.stages) for name in STAGES if self.stages}
        return {
            "images_per_second": counted / (self.done_s[first + counted] - self.done_s[first]),
            "latencies_ms": self.latencies_ms[self.in_flight :],
            "answered": self.answered,
            "stages": stages,
        }
