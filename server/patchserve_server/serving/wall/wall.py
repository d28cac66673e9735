"""The wall: shows those who watch what is inspected, and keeps the last images for them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from patchserve_server.domain.errors import ImageNotKeptError, QueueFullError
from patchserve_server.domain.events import Events, ImageInspected, InspectionFailed
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.words import counted
from patchserve_server.serving.allowance import Allowance
from patchserve_server.serving.wall.kept_images import KeptImage, KeptImages
from patchserve_server.serving.wall.score_history import Score, ScoreHistory
from patchserve_server.serving.wall.thumbnails import Thumbnails
from patchserve_server.serving.wall.tile import Tile
from patchserve_server.serving.wall.watcher import ReferenceChange, Watcher

_MIB: Final = 2**20
_RETRY_AFTER_S: Final = 10.0
_THUMBNAILS_PER_S: Final = 12.0  # for all watchers together
_THUMBNAILS_AT_ONCE: Final = 32
_SNAPSHOT_REFERENCES: Final = 16
_SNAPSHOT_SCORES: Final = 150  # of each reference


@dataclass(frozen=True, slots=True)
class WallLimits:
    """What watchers may cost."""

    watchers: int = 8
    anomalous_images: int = 100
    anomalous_bytes: int = 64 * _MIB
    intact_images: int = 24
    intact_bytes: int = 16 * _MIB
    keeps_s: float = 300.0  # how long images are kept after the last watcher has left

    def shared_by(self, processes: int) -> WallLimits:
        """The same for one of several processes: together they keep no more bytes."""
        anomalous_bytes, intact_bytes = self.anomalous_bytes // processes, self.intact_bytes // processes
        return replace(self, anomalous_bytes=anomalous_bytes, intact_bytes=intact_bytes)


@dataclass(frozen=True, slots=True)
class WallSnapshot:
    """What a watcher sees at first."""

    tiles: tuple[Tile, ...]  # of the kept images, in the order of their numbers
    scores: dict[ReferenceId, tuple[Score, ...]]  # the reference inspected last comes first
    watchers: int
    missed: int  # inspections since the last event that the watcher has seen, if it has seen one


@dataclass(frozen=True, slots=True)
class Seen:
    """What another front has inspected lately, for those who watch here. See WatcherUpdate."""

    tiles: tuple[Tile, ...]
    failures: tuple[InspectionFailed, ...]
    failed: int
    refused: int
    not_shown: int


class Wall(Events):
    """Hears of inspections. Draws and keeps images only while somebody watches; keeps scores always.

    It works beside the calls: it takes no permit and no turn of theirs.

    Args:
        images: the pool that draws.
        limits: what watchers may cost.
    """

    def __init__(self, images: Executor, limits: WallLimits | None = None) -> None:
        self._limits = limits = limits or WallLimits()
        self.run = secrets.token_hex(4)
        self.number = 0  # of the last inspection
        self.watched_elsewhere = 0  # people who watch the same on other fronts
        self._watchers: set[Watcher] = set()
        self._history = ScoreHistory()
        self._kept = {
            False: KeptImages(limits.intact_images, limits.intact_bytes),
            True: KeptImages(limits.anomalous_images, limits.anomalous_bytes),
        }  # by verdict
        self._forgetting: asyncio.TimerHandle | None = None
        self._allowance = Allowance(_THUMBNAILS_PER_S, _THUMBNAILS_AT_ONCE)
        self._thumbnails = Thumbnails(images, self._show)

    @contextmanager
    def watch(self, reference_id: ReferenceId | None) -> Iterator[Watcher]:
        """Shows a watcher what is inspected with this reference, or with any, until the block ends.

        Raises:
            QueueFullError: too many watch already.
        """
        if len(self.people) + self.watched_elsewhere >= self._limits.watchers:
            message = f"{counted(self._limits.watchers, 'watcher')} are watching, the most that this server allows."
            raise QueueFullError(f"{message} Close another page that watches, or try again later.", _RETRY_AFTER_S)
        watcher = Watcher(reference_id)
        self.attach(watcher)
        try:
            yield watcher
        finally:
            self.detach(watcher)

    @property
    def people(self) -> list[Watcher]:
        """Those who watch here."""
        return [watcher for watcher in self._watchers if watcher.is_person]

    def attach(self, watcher: Watcher) -> None:
        """Shows a watcher what is inspected from now on."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        self._watchers.add(watcher)

    def detach(self, watcher: Watcher) -> None:
        """Shows it no more."""
        self._watchers.remove(watcher)
        if not self._watchers:
            self._forgetting = asyncio.get_running_loop().call_later(self._limits.keeps_s, self._forget_images)

    @property
    def event_id(self) -> str:
        """Says which inspections a watcher has seen who has seen everything up to now."""
        return f"{self.run}-{self.number}"

    def snapshot(self, reference_id: ReferenceId | None, last_event_id: str = "") -> WallSnapshot:
        """What there is to see of this reference; None: of all, with fewer scores of each.

        Args:
            reference_id: the reference.
            last_event_id: the `event_id` that the watcher had before its connection was lost.
        """
        tiles = [tile for kept in self._kept.values() for tile in kept.tiles(reference_id)]
        if reference_id is None:
            references = self._history.references()[:_SNAPSHOT_REFERENCES]
            scores = {each: self._history.scores(each)[-_SNAPSHOT_SCORES:] for each in references}
        else:
            scores = {reference_id: self._history.scores(reference_id)}
        return WallSnapshot(
            tiles=tuple(sorted(tiles, key=lambda tile: tile.number)),
            scores=scores,
            watchers=len(self.people),
            missed=self._inspected_since(last_event_id),
        )

    def _inspected_since(self, event_id: str) -> int:
        run, _, number = event_id.partition("-")
        is_ours = run == self.run and number.isdecimal() and len(number) <= len(str(self.number))
        return max(0, self.number - int(number)) if is_ours else 0

    def scores(self, reference_id: ReferenceId) -> tuple[Score, ...]:
        """The last scores of a reference, the oldest first."""
        return self._history.scores(reference_id)

    def image(self, tile_id: str) -> KeptImage:
        """The kept image of a tile.

        Raises:
            ImageNotKeptError: it was not kept, or is no longer.
        """
        for kept in self._kept.values():
            if (image := kept.find(tile_id)) is not None:
                return image
        raise ImageNotKeptError

    def inspected(self, event: ImageInspected) -> None:
        inspection, time_s = event.inspection, time.time()
        self.number += 1
        self._history.add(event, time_s)
        watchers = self._watchers_of(inspection.reference_id)
        if not watchers:
            return
        for watcher in watchers:
            watcher.count_inspection()
        kept = self._kept[inspection.verdict.anomaly.is_anomalous]
        is_drawn = self._takes_thumbnail(watchers, is_anomalous=inspection.verdict.anomaly.is_anomalous)
        tile = Tile(
            self.event_id,
            self.number,
            time_s,
            event.origin,
            replace(inspection, overlay=None, score_map=None),
            is_kept=is_drawn and kept.accepts(event),
        )
        if tile.is_kept:
            kept.add(tile, event)
        if is_drawn:
            self._thumbnails.add(tile, event.draw_thumbnail)
        else:
            self._show(tile, b"")

    def show(self, seen: Seen) -> None:
        """Shows the people who watch here what another front has inspected."""
        for tile in seen.tiles:
            self.number += 1
            for watcher in self._people_of(tile.inspection.reference_id):
                watcher.count_inspection()
                watcher.add(replace(tile, number=self.number))
        for failure in seen.failures:
            for watcher in self._people_of(failure.reference_id):
                watcher.add_failure(failure)
        for watcher in self.people:
            if seen.refused:
                watcher.add_refusals(seen.refused)
            watcher.count_others(failed=max(0, seen.failed - len(seen.failures)), not_shown=seen.not_shown)

    def _people_of(self, reference_id: ReferenceId) -> list[Watcher]:
        return [watcher for watcher in self._watchers_of(reference_id) if watcher.is_person]

    def failed(self, event: InspectionFailed) -> None:
        for watcher in self._watchers_of(event.reference_id):
            watcher.add_failure(event)

    def refused(self) -> None:
        for watcher in self._watchers:
            watcher.add_refusals()

    def reference_changed(self, reference_id: ReferenceId, reference: ReferenceInfo | None) -> None:
        if reference is None:
            self._history.forget(reference_id)
            for kept in self._kept.values():
                kept.forget(reference_id)
        for watcher in self._watchers_of(reference_id):
            watcher.add_change(ReferenceChange(reference_id, reference))

    def _watchers_of(self, reference_id: ReferenceId) -> list[Watcher]:
        return [watcher for watcher in self._watchers if watcher.watches(reference_id)]

    def _takes_thumbnail(self, watchers: list[Watcher], *, is_anomalous: bool) -> bool:
        takers = [watcher for watcher in watchers if watcher.takes_thumbnail(is_anomalous=is_anomalous)]
        return bool(takers) and self._allowance.take()

    def _show(self, tile: Tile, thumbnail: bytes) -> None:
        tile = replace(tile, thumbnail=thumbnail)
        self._kept[tile.is_anomalous].redraw(tile)
        for watcher in self._watchers_of(tile.inspection.reference_id):
            watcher.add(tile)

    def _forget_images(self) -> None:
        self._forgetting = None
        for kept in self._kept.values():
            kept.clear()
