"""Runs the steps of a benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Final

from patchserve_client.bench.arrivals import Arrivals, arrival_times_s
from patchserve_client.bench.load import Load, record_lag
from patchserve_client.bench.step import Recorder, Step

_FEWEST_IMAGES: Final = 100  # for a 99th percentile
_LONGEST_FACTOR: Final = 4.0
_QUIET_S: Final = 0.2  # between two steps


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    objective_ms: float
    percentile: float  # 0 to 100
    arrivals: Arrivals
    step_s: float  # of a step; slow rates take longer
    seed: int
    start_rate: float | None  # None: chosen by the latency without load
    max_rate: float


@dataclass(slots=True)
class Measuring:
    """Measures one rate after another.

    Args:
        plan: what to measure.
        load: sends the images.
        end: set by Ctrl-C. The step that runs then does not count.
        on_step: told of each step.
    """

    plan: Plan
    load: Load
    end: Event
    on_step: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)

    async def measure(self, rate: float) -> Step | None:
        """One step. None: it was interrupted."""
        plan = self.plan
        duration_s = min(max(plan.step_s, _FEWEST_IMAGES / rate), _LONGEST_FACTOR * plan.step_s)
        times_s = arrival_times_s(plan.arrivals, rate, duration_s, plan.seed + len(self.steps))
        recorder = Recorder()
        lag = asyncio.create_task(record_lag(recorder))
        try:
            await self.load.run(times_s, recorder, self.end)
        finally:
            lag.cancel()
            await asyncio.wait([lag])
        if self.end.is_set():
            return None
        step = recorder.step(rate, plan.objective_ms, plan.percentile, is_paced_by_server=self.load.is_paced_by_server)
        self.steps.append(step)
        self.on_step(step)
        await asyncio.sleep(_QUIET_S)
        return step
