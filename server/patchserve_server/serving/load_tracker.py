"""The progress of the active loads, for ListLoads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from patchserve_server.domain.load_progress import LoadProgress, LoadStage
from patchserve_server.domain.reference_id import ReferenceId


class TrackedLoad:
    """One active load. Only one thread writes it at a time; any thread may read it."""

    def __init__(self, progress: LoadProgress) -> None:
        self.progress = progress

    def received(self, image_count: int) -> None:
        """Records how many images were received and decoded."""
        self.progress = replace(self.progress, steps_done=image_count, image_count=image_count)

    def reached(self, stage: LoadStage, done: int, total: int) -> None:
        """Records a finished step."""
        self.progress = replace(self.progress, stage=stage, steps_done=done, steps_total=total)


class LoadTracker:
    """Lists every load from its start to its end, also if it fails. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: list[TrackedLoad] = []

    @contextmanager
    def track(self, reference_id: ReferenceId, image_total: int) -> Iterator[TrackedLoad]:
        """Tracks a load of `image_total` images (0: unknown) until the block ends."""
        load = TrackedLoad(LoadProgress(reference_id, LoadStage.RECEIVE, 0, image_total, datetime.now(UTC), 0))
        with self._lock:
            self._loads.append(load)
        try:
            yield load
        finally:
            with self._lock:
                self._loads.remove(load)

    def active_loads(self, reference_id: ReferenceId | None = None) -> list[LoadProgress]:
        """The loads of this reference, or all loads; the oldest first."""
        with self._lock:
            progress = [load.progress for load in self._loads]
        return [load for load in progress if reference_id in (None, load.reference_id)]
