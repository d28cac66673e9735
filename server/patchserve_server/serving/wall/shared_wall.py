"""The walls of all fronts as one: each hears of its own inspections, and those who watch any of them see all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from patchserve_server.domain.errors import ImageNotKeptError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.peers import Answer, Peers, Question
from patchserve_server.serving.values import body_of, from_json_bytes
from patchserve_server.serving.wall.kept_images import KeptImage
from patchserve_server.serving.wall.score_history import Score
from patchserve_server.serving.wall.sent_image import from_parts, parts_of
from patchserve_server.serving.wall.wall import Seen, Wall, WallSnapshot
from patchserve_server.serving.wall.watcher import Watcher

_SNAPSHOT, _SCORES, _IMAGE = "wall snapshot", "wall scores", "wall image"  # what is asked
_WATCHING, _SEEN = "wall watching", "wall seen"  # what is told
TELL_AGAIN_S: Final = 5.0
_GONE_S: Final = 3 * TELL_AGAIN_S  # a front that has ended does not say so


@dataclass(frozen=True, slots=True)
class _Watching:
    """Who watches one wall."""

    run: str  # of the wall
    count: int
    references: tuple[ReferenceId, ...]
    watches_all: bool


class _Relay(Watcher):
    """Gathers what those who watch the other walls have to be shown."""

    is_person = False

    def __init__(self) -> None:
        super().__init__(None)
        self.others: dict[str, tuple[_Watching, float]] = {}  # by wall, and until when it counts

    def watches(self, reference_id: ReferenceId) -> bool:
        return any(one.watches_all or reference_id in one.references for one, _ in self.others.values())


class SharedWall:
    """What the faces see of the walls. While nobody watches, nothing goes between them: scores are asked for.

    Args:
        wall: of this process.
        peers: the other fronts.
        images: the pool that draws.
    """

    def __init__(self, wall: Wall, peers: Peers, images: Executor) -> None:
        self._wall = wall
        self._peers = peers
        self._images = images
        self._relay = _Relay()
        self._relaying: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        peers.answer_with(_SNAPSHOT, self._answer_snapshot)
        peers.answer_with(_SCORES, self._answer_scores)
        peers.answer_with(_IMAGE, self._answer_image)
        peers.hear_with(_WATCHING, self._hear_watching)
        peers.hear_with(_SEEN, self._hear_seen)

    @contextmanager
    def watch(self, reference_id: ReferenceId | None) -> Iterator[Watcher]:
        """As `Wall.watch`, for what any front inspects."""
        self._drop_gone()
        try:
            with self._wall.watch(reference_id) as watcher:
                self._tell_watching()
                yield watcher
        finally:
            self._tell_watching()

    @property
    def event_id(self) -> str:
        return self._wall.event_id

    async def snapshot(self, reference_id: ReferenceId | None, last_event_id: str = "") -> WallSnapshot:
        """As `Wall.snapshot`, of all walls; `missed` counts what this one knows of."""
        own = self._wall.snapshot(reference_id, last_event_id)
        answers = await self._peers.ask(_SNAPSHOT, {"id": reference_id})
        others = [from_json_bytes(WallSnapshot, body) for _, body in answers if body]
        if not others:
            return own
        tiles = sorted((tile for each in (own, *others) for tile in each.tiles), key=lambda tile: tile.time_s)
        first = self._wall.number - len(tiles) + 1
        return replace(
            own,
            tiles=tuple(replace(tile, number=first + index) for index, tile in enumerate(tiles)),
            scores=_merged(own, *others),
            watchers=sum(each.watchers for each in (own, *others)),
        )

    async def scores(self, reference_id: ReferenceId) -> tuple[Score, ...]:
        """The last scores of a reference on all walls, the oldest first."""
        answers = await self._peers.ask(_SCORES, {"id": reference_id})
        others = [from_json_bytes(_Scores, body).scores for _, body in answers if body]
        return _in_order(self._wall.scores(reference_id), *others)

    async def image(self, tile_id: str, *, with_overlay: bool = False) -> KeptImage:
        """The kept image of a tile, wherever it was inspected.

        Raises:
            ImageNotKeptError: it was not kept, or is no longer.
        """
        try:
            return self._wall.image(tile_id)
        except ImageNotKeptError:
            for head, body in await self._peers.ask(_IMAGE, {"tile": tile_id, "overlay": with_overlay}):
                if head:
                    return from_parts(head, body)
            raise

    async def _answer_snapshot(self, question: Question) -> Answer:
        return {}, body_of(self._wall.snapshot(_reference_id(question)))

    async def _answer_scores(self, question: Question) -> Answer:
        reference_id = ReferenceId(question["id"])
        return {}, body_of(_Scores(self._wall.scores(reference_id)))

    async def _answer_image(self, question: Question) -> Answer:
        try:
            kept = self._wall.image(question["tile"])
        except ImageNotKeptError:
            return {}, b""
        overlay = None
        if question["overlay"]:
            loop = asyncio.get_running_loop()
            overlay = await loop.run_in_executor(self._images, kept.draw_overlay, kept.image)
        return parts_of(kept, overlay)

    def _tell_watching(self) -> None:
        """Tells the other walls who watches this one; while somebody does, again and again."""
        people = self._wall.people
        references = tuple({each.reference_id for each in people if each.reference_id is not None})
        watching = _Watching(
            self._wall.run, len(people), references, watches_all=any(each.reference_id is None for each in people)
        )
        self._peers.tell(_WATCHING, body_of(watching))
        if people and self._telling is None:
            self._telling = asyncio.create_task(self._tell_again())

    async def _tell_again(self) -> None:
        while self._wall.people:
            await asyncio.sleep(TELL_AGAIN_S)
            self._tell_watching()
        self._telling = None

    def _hear_watching(self, body: bytes) -> None:
        watching = from_json_bytes(_Watching, body)
        others = self._relay.others
        others.pop(watching.run, None)
        if watching.count:
            others[watching.run] = watching, asyncio.get_running_loop().time() + _GONE_S
        self._drop_gone()
        if others and self._relaying is None:
            self._wall.attach(self._relay)
            self._relaying = asyncio.create_task(self._relay_while_watched())
        elif not others and self._relaying is not None:
            self._relaying.cancel()
            self._detach()

    def _detach(self) -> None:
        self._relaying = None
        self._wall.detach(self._relay)

    def _drop_gone(self) -> None:
        now_s, others = asyncio.get_running_loop().time(), self._relay.others
        for run in [run for run, (_, until_s) in others.items() if until_s <= now_s]:
            del others[run]
        self._wall.watched_elsewhere = sum(watching.count for watching, _ in others.values())

    async def _relay_while_watched(self) -> None:
        while self._relay.others:
            update = await self._relay.update()
            seen = Seen(update.tiles, update.failures, update.failed, update.refused, update.not_shown)
            self._peers.tell(_SEEN, body_of(seen))
            self._drop_gone()
        self._detach()

    def _hear_seen(self, body: bytes) -> None:
        self._wall.show(from_json_bytes(Seen, body))


@dataclass(frozen=True, slots=True)
class _Scores:
    scores: tuple[Score, ...]


def _reference_id(question: Question) -> ReferenceId | None:
    return None if question["id"] is None else ReferenceId(question["id"])


def _in_order(*scores: tuple[Score, ...]) -> tuple[Score, ...]:
    return tuple(sorted(itertools.chain(*scores), key=lambda score: score.time_s))


def _merged(*snapshots: WallSnapshot) -> dict[ReferenceId, tuple[Score, ...]]:
    """The scores of all; the reference inspected last comes first."""
    ids = dict.fromkeys(reference_id for each in snapshots for reference_id in each.scores)
    merged = {each: _in_order(*(snapshot.scores.get(each, ()) for snapshot in snapshots)) for each in ids}
    last_s = {reference_id: scores[-1].time_s if scores else 0.0 for reference_id, scores in merged.items()}
    return {reference_id: merged[reference_id] for reference_id in sorted(merged, key=last_s.__getitem__, reverse=True)}
