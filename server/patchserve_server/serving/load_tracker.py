"""The progress of the active loads, for ListLoads and for those who hear of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.domain.load_progress import LoadProgress, LoadStage
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import LoadEnded, LoadStep, reason_of


class TrackedLoad:
    """One active load. Only one thread writes it at a time; any thread may read it."""

    def __init__(self, progress: LoadProgress) -> None:
        self.progress = progress
        self.started_at_s = self._stage_since_s = time.perf_counter()
        self.waited_s = 0.0  # for the thread that fits
        self._steps: list[LoadStep] = []

    def received(self, image_count: int) -> None:
        """Records how many images were received and decoded."""
        self.progress = replace(self.progress, steps_done=image_count, image_count=image_count)

    def reached(self, stage: LoadStage, done: int, total: int) -> None:
        """Records a finished step."""
        if stage is not self.progress.stage:
            self._end_stage()
        self.progress = replace(self.progress, stage=stage, steps_done=done, steps_total=total)

    def begin_to_fit(self) -> None:
        """Records that there is a thread for the stage that was reached: what has passed since then was a wait."""
        now_s = time.perf_counter()
        self.waited_s, self._stage_since_s = now_s - self._stage_since_s, now_s

    def end(self, *, appends: bool, reason: str) -> LoadEnded:
        """What there is to tell of the whole load."""
        self._end_stage()
        duration_s = time.perf_counter() - self.started_at_s
        return LoadEnded(
            self.progress.reference_id,
            appends,
            reason,
            self.started_at_s,
            duration_s,
            self.waited_s,
            tuple(self._steps),
        )

    def _end_stage(self) -> None:
        now_s = time.perf_counter()
        self._steps.append(LoadStep(self.progress.stage, self._stage_since_s, now_s - self._stage_since_s))
        self._stage_since_s = now_s


class LoadTracker:
    """Lists every load from its start to its end, also if it fails. Thread-safe.

    Args:
        events: hears of every load.
    """

    def __init__(self, events: Events = NOBODY) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._loads: list[TrackedLoad] = []

    @contextmanager
    def track(self, reference_id: ReferenceId, image_total: int, *, appends: bool = False) -> Iterator[TrackedLoad]:
        """Tracks a load of `image_total` images (0: unknown) until the block ends."""
        load = TrackedLoad(LoadProgress(reference_id, LoadStage.RECEIVE, 0, image_total, datetime.now(UTC), 0))
        with self._lock:
            self._loads.append(load)
        self._events.load_began(reference_id)
        reason = ""
        try:
            yield load
        except BaseException as error:
            reason = reason_of(error)
            raise
        finally:
            with self._lock:
                self._loads.remove(load)
            self._events.load_ended(load.end(appends=appends, reason=reason))

    def active_loads(self, reference_id: ReferenceId | None = None) -> list[LoadProgress]:
        """The loads of this reference, or all loads; the oldest first."""
        with self._lock:
            progress = [load.progress for load in self._loads]
        return [load for load in progress if reference_id in (None, load.reference_id)]
