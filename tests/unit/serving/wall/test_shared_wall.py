"""SharedWall: whoever watches a front sees what all fronts inspect; while nobody watches, nothing goes between them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes.events import OTHER, OVERLAY, failed, inspected
from fakes.peers import Switchboard
from fakes.waiting import until

from patchserve_server.domain.errors import ImageNotKeptError, QueueFullError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.serving.wall import SharedWall, Tile, Wall, WallLimits, Watcher, shared_wall, watcher


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "GATHER_S", 0)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as images:
        yield images


class Fronts:
    """The walls of several fronts."""

    def __init__(self, pool: ThreadPoolExecutor, count: int = 2, limits: WallLimits | None = None) -> None:
        self.switchboard = Switchboard()
        self.peers = [self.switchboard.front() for _ in range(count)]
        self.own = [Wall(pool, limits) for _ in self.peers]
        self.walls = [SharedWall(wall, peers, pool) for wall, peers in zip(self.own, self.peers, strict=True)]


async def next_tiles(one: Watcher, count: int) -> list[Tile]:
    tiles: list[Tile] = []
    async with asyncio.timeout(10):
        while len(tiles) < count:
            tiles += (await one.update()).tiles
    return tiles


async def test_while_nobody_watches_nothing_is_told_and_no_image_is_kept(pool: ThreadPoolExecutor) -> None:
    fronts = Fronts(pool)
    for wall in fronts.own:
        wall.inspected(inspected())
    assert not fronts.switchboard.told
    assert (await fronts.walls[0].snapshot(None)).tiles == ()
    assert len(await fronts.walls[0].scores(DEFAULT_REFERENCE_ID)) == 2, "scores are asked for"


async def test_a_watcher_sees_what_another_front_inspects_with_its_picture(pool: ThreadPoolExecutor) -> None:
    fronts = Fronts(pool, 3)
    with fronts.walls[0].watch(DEFAULT_REFERENCE_ID) as one, fronts.walls[1].watch(None) as all_of_them:
        fronts.own[2].inspected(inspected())
        fronts.own[2].inspected(inspected(OTHER))
        (tile,) = await next_tiles(one, 1)
        assert (tile.thumbnail, tile.is_kept) == (b"thumbnail", True)
        tiles = await next_tiles(all_of_them, 2)
        assert {each.inspection.reference_id for each in tiles} == {DEFAULT_REFERENCE_ID, OTHER}
        assert [each.number for each in tiles] == [1, 2]
        assert tiles[0].tile_id != tiles[1].tile_id
        snapshot = await fronts.walls[0].snapshot(None)
        assert [each.tile_id for each in snapshot.tiles] == [each.tile_id for each in tiles]
        assert snapshot.watchers == 2
        assert set(snapshot.scores) == {DEFAULT_REFERENCE_ID, OTHER}


async def test_an_image_that_another_front_keeps_can_be_seen_and_inspected_again(pool: ThreadPoolExecutor) -> None:
    fronts = Fronts(pool)
    frame = RawFrame(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    with fronts.walls[0].watch(None) as one:
        fronts.own[1].inspected(inspected(image=SentImage(b"a file", 4095)))
        fronts.own[1].inspected(inspected(image=SentImage(frame)))
        of_file, of_frame = await next_tiles(one, 2)
        kept = await fronts.walls[0].image(of_file.tile_id, with_overlay=True)
        assert kept.image == SentImage(b"a file", 4095)
        overlay = kept.draw_overlay(kept.image)
        assert (overlay.data, overlay.format, overlay.size_px) == (OVERLAY.data, OVERLAY.format, OVERLAY.size_px)
        kept = await fronts.walls[0].image(of_frame.tile_id)
        assert isinstance(kept.image.content, RawFrame)
        assert np.array_equal(kept.image.content.samples, frame.samples)
        with pytest.raises(ImageNotKeptError):
            await fronts.walls[0].image("0-0")


async def test_failures_and_refusals_of_other_fronts_are_counted(pool: ThreadPoolExecutor) -> None:
    fronts = Fronts(pool)
    with fronts.walls[0].watch(DEFAULT_REFERENCE_ID) as one:
        for _ in range(30):
            fronts.own[1].failed(failed())
        for _ in range(5):
            fronts.own[1].refused()
        counted = failures = refused = 0
        async with asyncio.timeout(10):
            while (counted, refused) != (30, 5):
                update = await one.update()
                failures, counted, refused = len(update.failures), counted + update.failed, refused + update.refused
        assert failures == watcher.MAX_FAILURES, "the last ones"


async def test_when_the_last_watcher_has_left_other_fronts_draw_no_more(pool: ThreadPoolExecutor) -> None:
    fronts = Fronts(pool, limits=WallLimits(keeps_s=0))
    with fronts.walls[0].watch(None):
        await asyncio.sleep(0)
        fronts.own[1].inspected(inspected())
        await until(lambda: bool(fronts.own[1].snapshot(None).tiles))
    await until(lambda: not fronts.own[1].snapshot(None).tiles)
    fronts.own[1].inspected(inspected())
    assert not fronts.own[1].snapshot(None).tiles


async def test_a_front_that_ends_while_it_is_watched_is_forgotten(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_wall, "_GONE_S", 0.05)
    fronts = Fronts(pool, limits=WallLimits(keeps_s=0, watchers=1))
    with fronts.walls[0].watch(None):
        fronts.switchboard.leave(fronts.peers[0])
        await asyncio.sleep(0.06)
        with fronts.walls[1].watch(None):  # counts as the only one
            pass
        fronts.own[1].inspected(inspected())
        await until(lambda: not fronts.own[1].snapshot(None).tiles)


async def test_all_fronts_together_have_a_limited_number_of_watchers(pool: ThreadPoolExecutor) -> None:
    fronts = Fronts(pool, limits=WallLimits(watchers=2))
    with (
        fronts.walls[0].watch(None),
        fronts.walls[1].watch(None),
        pytest.raises(QueueFullError, match="2 watchers are watching"),
        fronts.walls[0].watch(None),
    ):
        pass


def test_several_fronts_keep_no_more_bytes_than_one() -> None:
    limits, shared = WallLimits(), WallLimits().shared_by(4)
    assert 4 * shared.anomalous_bytes <= limits.anomalous_bytes
    assert 4 * shared.intact_bytes <= limits.intact_bytes
    assert shared.watchers == limits.watchers
