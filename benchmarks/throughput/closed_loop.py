"""What a closed loop measures: how long it runs, and how fast it was."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

STAGES = ("queue_ms", "decode_ms", "embed_ms", "search_ms", "render_ms", "total_ms")


@dataclass
class ClosedLoop:
    """Response times of a loop that keeps `in_flight` images in work.

    The first `in_flight` responses are the warm-up. After that only whole groups of `in_flight` responses count:
    responses come in bursts, one batch at a time, and one burst more or less would be an error of several per cent.
    Responses that arrive after `is_done` are awaited but not measured, because the load is falling by then.
    """

    in_flight: int
    seconds: float  # minimum, after the warm-up; at least one group is measured
    response_count: int = 0  # warm-up and late responses included
    done_at_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    timings: list[Any] = field(default_factory=list)  # the server's Timing messages
    is_done: bool = False

    def record(self, sent_at_s: float, timing: Any = None) -> None:
        """Record a response that arrives now, to a request that was sent at `sent_at_s` (time.perf_counter)."""
        now_s = time.perf_counter()
        self.response_count += 1
        if self.is_done:
            return
        self.done_at_s.append(now_s)
        self.latencies_ms.append((now_s - sent_at_s) * 1000)
        if timing is not None:
            self.timings.append(timing)
        measured = len(self.done_at_s) - self.in_flight
        self.is_done = measured >= self.in_flight and now_s - self.done_at_s[self.in_flight - 1] >= self.seconds

    def summary(self) -> dict[str, Any]:
        """The measurement as JSON values."""
        first = self.in_flight - 1
        counted = (len(self.done_at_s) - self.in_flight) // self.in_flight * self.in_flight
        stages = {
            name: statistics.fmean(getattr(timing, name) for timing in self.timings) for name in STAGES if self.timings
        }
        return {
            "images_per_second": counted / (self.done_at_s[first + counted] - self.done_at_s[first]),
            "latencies_ms": self.latencies_ms[self.in_flight :],
            "response_count": self.response_count,
            "stages": stages,
        }
