"""The loads under way, for whoever asks how far they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from patchserve_server.domain.load_progress import LoadProgress, LoadStage
from patchserve_server.domain.reference_id import ReferenceId


class TrackedLoad:
    """One load on the board. It has one writer at a time; any thread reads whole snapshots."""

    def __init__(self, progress: LoadProgress) -> None:
        self.progress = progress

    def received(self, image_count: int) -> None:
        """Takes note of the images that have come and are decoded."""
        self.progress = replace(self.progress, steps_done=image_count, image_count=image_count)

    def reached(self, stage: LoadStage, done: int, total: int) -> None:
        """Takes note of a step."""
        self.progress = replace(self.progress, stage=stage, steps_done=done, steps_total=total)


class LoadTracker:
    """Holds every load from its start to its end, however it ends, and nothing of it afterwards. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[TrackedLoad] = []

    @contextmanager
    def entry(self, reference_id: ReferenceId, image_total: int) -> Iterator[TrackedLoad]:
        """A load that receives images, `image_total` of them; 0: unknown. It is on the board until the block ends."""
        entry = TrackedLoad(LoadProgress(reference_id, LoadStage.RECEIVE, 0, image_total, datetime.now(UTC), 0))
        with self._lock:
            self._entries.append(entry)
        try:
            yield entry
        finally:
            with self._lock:
                self._entries.remove(entry)

    def snapshot(self, reference_id: ReferenceId | None = None) -> list[LoadProgress]:
        """The loads of this reference, or all; the oldest first."""
        with self._lock:
            loads = [entry.progress for entry in self._entries]
        return [load for load in loads if reference_id in (None, load.reference_id)]
