"""One watcher of the wall: what it has not been shown yet, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.events import InspectionFailed
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.allowance import Allowance
from patchserve_server.serving.wall.tile import Tile

GATHER_S: Final = 0.25  # what happens within this time is shown together
MAX_TILES: Final = 100  # of each verdict, that wait to be shown
MAX_FAILURES: Final = 20
MAX_CHANGES: Final = 100
_THUMBNAILS_PER_S: Final = 3.0  # of each verdict: an anomaly must not wait behind intact items
_THUMBNAILS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class ReferenceChange:
    """A reference has another revision, or was deleted."""

    reference_id: ReferenceId
    reference: ReferenceInfo | None  # None: it was deleted


@dataclass(frozen=True, slots=True)
class WatcherUpdate:
    """What happened since the last update."""

    tiles: tuple[Tile, ...]  # in the order of their numbers
    failures: tuple[InspectionFailed, ...]  # the last ones
    changes: tuple[ReferenceChange, ...]
    inspected: int  # all images, shown or not
    failed: int
    refused: int
    not_shown: int  # images that came faster than this watcher reads


class Watcher:
    """Gathers what one watcher has to be shown. One who reads slowly misses tiles, which are counted.

    Args:
        reference_id: what it watches; None: every reference.
    """

    is_person = True  # else it is another process, for those who watch there

    def __init__(self, reference_id: ReferenceId | None) -> None:
        self.reference_id = reference_id
        self._allowances = {verdict: Allowance(_THUMBNAILS_PER_S, _THUMBNAILS_AT_ONCE) for verdict in (False, True)}
        self._news = asyncio.Event()
        self._begin()

    def _begin(self) -> None:
        self._tiles: dict[bool, deque[Tile]] = {False: deque(), True: deque()}  # by verdict
        self._failures: deque[InspectionFailed] = deque(maxlen=MAX_FAILURES)
        self._changes: deque[ReferenceChange] = deque(maxlen=MAX_CHANGES)
        self._inspected = self._failed = self._refused = self._not_shown = 0
        self._news.clear()

    def watches(self, reference_id: ReferenceId) -> bool:
        return self.reference_id in (None, reference_id)

    def takes_thumbnail(self, *, is_anomalous: bool) -> bool:
        """Whether one more thumbnail is not too many for it."""
        return self._allowances[is_anomalous].take()

    def count_inspection(self) -> None:
        self._inspected += 1

    def add(self, tile: Tile) -> None:
        """Shows a tile with the next update."""
        tiles = self._tiles[tile.is_anomalous]
        tiles.append(tile)
        if len(tiles) > MAX_TILES:
            tiles.popleft()
            self._not_shown += 1
        self._news.set()

    def add_failure(self, failure: InspectionFailed) -> None:
        self._failures.append(failure)
        self._failed += 1
        self._news.set()

    def add_refusals(self, count: int = 1) -> None:
        self._refused += count
        self._news.set()

    def count_others(self, *, failed: int, not_shown: int) -> None:
        """Counts what other processes did not say more of."""
        self._failed += failed
        self._inspected += not_shown
        self._not_shown += not_shown

    def add_change(self, change: ReferenceChange) -> None:
        self._changes.append(change)
        self._news.set()

    async def update(self) -> WatcherUpdate:
        """Waits until something happens, gathers what follows shortly after, and takes all of it."""
        await self._news.wait()
        await asyncio.sleep(GATHER_S)
        tiles = sorted((*self._tiles[False], *self._tiles[True]), key=lambda tile: tile.number)
        update = WatcherUpdate(
            tuple(tiles),
            tuple(self._failures),
            tuple(self._changes),
            self._inspected,
            self._failed,
            self._refused,
            self._not_shown,
        )
        self._begin()
        return update
