"""What one rate has shown."""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NOT_SENT: Final = "NOT_SENT"  # too many images were on their way already
_LATE_SHARE: Final = 0.1  # of the objective
_LATE_MS: Final = 5.0


class Outcome(StrEnum):
    """Whether a step kept the objective; if not, why."""

    KEPT = "kept"
    TOO_SLOW = "too_slow"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """The results at one rate. Latencies count from the time at which an image was to be sent, not from its sending."""

    rate: float  # images a second that were to be sent
    duration_s: float
    sent: int
    completed: int
    failed: dict[str, int]  # by the reason of the error
    completed_rate: float  # images a second
    p50_ms: float | None  # None: no image was completed
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    late_p99_ms: float  # how much later than intended images were sent
    loop_lag_p99_ms: float  # how much later than due this program could do anything
    client_cores: float  # of the processor, that this program used
    outcome: Outcome
    is_client_limited: bool  # this program was too slow itself; its latencies are no longer those of the server


class Recorder:
    """Collects what happens during one step. Its memory is three numbers an image."""

    def __init__(self) -> None:
        self.outstanding = 0
        self._latencies_s, self._late_s, self._lag_s = array("d"), array("d"), array("d")
        self._failed: Counter[str] = Counter()
        self._started_s = self._last_s = time.monotonic()
        self._cpu_s = time.process_time()

    @property
    def started_s(self) -> float:
        """When the step started, by time.monotonic()."""
        return self._started_s

    def sent(self, intended_s: float) -> None:
        """An image is sent now that was to be sent at this time."""
        self.outstanding += 1
        self._late_s.append(time.monotonic() - intended_s)

    def completed(self, intended_s: float) -> None:
        """Its result is there."""
        self.outstanding -= 1
        self._last_s = time.monotonic()
        self._latencies_s.append(self._last_s - intended_s)

    def failed(self, reason: str) -> None:
        """An image that was sent has no result."""
        self.outstanding -= 1
        self._failed[reason] += 1

    def not_sent(self) -> None:
        """An image was to be sent, but too many were on their way."""
        self._failed[NOT_SENT] += 1

    def lagged(self, lag_s: float) -> None:
        """This program did something so much later than it was due."""
        self._lag_s.append(lag_s)

    def step(self, rate: float, objective_ms: float, percentile: float, *, is_paced_by_server: bool) -> Step:
        """The results.

        Args:
            rate: images a second that were to be sent.
            objective_ms: the largest latency at this percentile.
            percentile: 0 to 100.
            is_paced_by_server: images are sent late because the server reads slowly, as from a stream.
        """
        elapsed_s = max(self._last_s - self._started_s, 1e-9)
        measured_ms = 1000 * percentile_of(self._latencies_s, percentile)
        outcome = Outcome.KEPT
        if self._failed or not self._latencies_s:
            outcome = Outcome.FAILED
        elif measured_ms > objective_ms:
            outcome = Outcome.TOO_SLOW
        late_ms, lag_ms = (1000 * percentile_of(values, 99) for values in (self._late_s, self._lag_s))
        own_ms = lag_ms if is_paced_by_server else max(late_ms, lag_ms)
        return Step(
            rate=rate,
            duration_s=elapsed_s,
            sent=len(self._late_s),
            completed=len(self._latencies_s),
            failed=dict(self._failed),
            completed_rate=len(self._latencies_s) / elapsed_s,
            p50_ms=self._latency_ms(50),
            p90_ms=self._latency_ms(90),
            p99_ms=self._latency_ms(99),
            max_ms=self._latency_ms(100),
            late_p99_ms=late_ms,
            loop_lag_p99_ms=lag_ms,
            client_cores=(time.process_time() - self._cpu_s) / elapsed_s,
            outcome=outcome,
            is_client_limited=own_ms > max(_LATE_MS, _LATE_SHARE * objective_ms),
        )

    def _latency_ms(self, percentile: float) -> float | None:
        return 1000 * percentile_of(self._latencies_s, percentile) if self._latencies_s else None


def percentile_of(values: array[float], percentile: float) -> float:
    """The smallest value that so many percent of the values do not exceed; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percentile / 100) - 1)]
