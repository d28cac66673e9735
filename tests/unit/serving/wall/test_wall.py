"""Wall: it draws and keeps images only while somebody watches, and stays bounded whatever is inspected."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes.events import OTHER, failed, inspected
from fakes.gray import reference
from fakes.waiting import settle, until

from patchserve_server.domain.errors import ImageNotKeptError, QueueFullError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.serving.wall import Wall, WallLimits, Watcher, watcher
from patchserve_server.serving.wall import thumbnails as thumbnails_module

NOT_LONG = WallLimits(keeps_s=0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "GATHER_S", 0)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as images:
        yield images


class Drawing:
    """Counts what is drawn, and waits until the gate is open."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = threading.Event()

    def __call__(self) -> bytes:
        assert self.gate.wait(30)
        self.count += 1
        return b"thumbnail"


async def tiles_of(one: Watcher, count: int) -> list[bytes]:
    """The thumbnails of the next tiles."""
    thumbnails: list[bytes] = []
    while len(thumbnails) < count:
        thumbnails += [tile.thumbnail for tile in (await one.update()).tiles]
    return thumbnails


def pixels_of(image: SentImage) -> bytes:
    return image.content if isinstance(image.content, bytes) else image.content.samples.tobytes()


async def test_while_nobody_watches_nothing_is_drawn_and_no_image_is_kept(pool: ThreadPoolExecutor) -> None:
    wall, drawing = Wall(pool), Drawing()
    image = np.zeros((4, 4, 3), np.uint8)
    alive = weakref.ref(image)
    wall.inspected(inspected(image=SentImage(RawFrame(image)), draw_thumbnail=drawing))
    del image
    gc.collect()
    assert alive() is None
    assert drawing.count == 0
    assert wall.snapshot(None).tiles == ()
    assert len(wall.scores(DEFAULT_REFERENCE_ID)) == 1, "scores are numbers, and are kept always"


async def test_a_watcher_sees_every_inspection_with_its_thumbnail(pool: ThreadPoolExecutor) -> None:
    wall = Wall(pool)
    with wall.watch(None) as one, wall.watch(OTHER) as other:
        wall.inspected(inspected())
        wall.inspected(inspected(OTHER, anomalous=False))
        assert await tiles_of(one, 2) == [b"thumbnail", b"thumbnail"]
        assert await tiles_of(other, 1) == [b"thumbnail"]
        (intact,) = wall.snapshot(OTHER).tiles
        assert wall.image(intact.tile_id).image.content == b"image"
        assert intact.thumbnail == b"thumbnail"


@pytest.mark.parametrize("image", [SentImage(b"sent"), SentImage(RawFrame(np.full((4, 4, 3), 7, np.uint8)), 4095)])
async def test_the_image_of_an_anomaly_is_kept_as_it_was_sent(pool: ThreadPoolExecutor, image: SentImage) -> None:
    wall = Wall(pool)
    with wall.watch(None):
        wall.inspected(inspected(image=image))
        (tile,) = wall.snapshot(None).tiles
        assert tile.is_kept
        kept = wall.image(tile.tile_id).image
        assert kept.white_level == image.white_level
        assert pixels_of(kept) == pixels_of(image)


async def test_after_the_last_watcher_has_left_images_are_kept_for_a_while_only(pool: ThreadPoolExecutor) -> None:
    wall = Wall(pool, NOT_LONG)
    image = np.zeros((4, 4, 3), np.uint8)
    alive = weakref.ref(image)
    with wall.watch(None), wall.watch(None):
        wall.inspected(inspected(image=SentImage(RawFrame(image))))
        (tile,) = wall.snapshot(None).tiles
    del image
    await until(lambda: not wall.snapshot(None).tiles)
    gc.collect()
    assert alive() is None
    with pytest.raises(ImageNotKeptError):
        wall.image(tile.tile_id)


async def test_a_watcher_who_comes_back_in_time_finds_the_images(pool: ThreadPoolExecutor) -> None:
    wall = Wall(pool, NOT_LONG)
    with wall.watch(None):
        wall.inspected(inspected())
    with wall.watch(None):
        await settle()
        assert len(wall.snapshot(None).tiles) == 1


async def test_one_more_watcher_than_allowed_is_refused(pool: ThreadPoolExecutor) -> None:
    wall = Wall(pool, WallLimits(watchers=2))
    with wall.watch(None), wall.watch(OTHER):
        with pytest.raises(QueueFullError, match="2 watchers are watching, the most"), wall.watch(None):
            pass
        assert wall.snapshot(None).watchers == 2
    with wall.watch(None):
        assert wall.snapshot(None).watchers == 1


async def test_a_busy_pool_holds_up_nobody_and_nothing_piles_up(pool: ThreadPoolExecutor) -> None:
    wall, drawing = Wall(pool), Drawing()
    with wall.watch(None) as one:
        for _ in range(1000):
            wall.inspected(inspected(draw_thumbnail=drawing))
        await settle()
        waiting = thumbnails_module.MAX_WAITING + 1
        assert len(wall._thumbnails._waiting) < waiting
        update = await one.update()
        assert update.inspected == 1000
        assert len(update.tiles) + update.not_shown >= 1000 - waiting
        assert not any(tile.thumbnail for tile in update.tiles)
        drawing.gate.set()
        await until(lambda: drawing.count > 0)
        assert b"thumbnail" in await tiles_of(one, 1)
        assert drawing.count <= waiting
        assert len(wall.snapshot(None).tiles) <= WallLimits().anomalous_images


async def test_at_a_high_rate_few_thumbnails_are_drawn_and_anomalies_do_not_wait_behind_intact_items(
    pool: ThreadPoolExecutor,
) -> None:
    wall, drawing = Wall(pool), Drawing()
    drawing.gate.set()
    with wall.watch(None) as one:
        for _ in range(500):
            wall.inspected(inspected(anomalous=False, draw_thumbnail=drawing))
        wall.inspected(inspected(anomalous=True))
        anomalous = None
        while anomalous is None:
            anomalous = next((tile for tile in (await one.update()).tiles if tile.is_anomalous), None)
        assert anomalous.thumbnail == b"thumbnail"
        assert 1 <= drawing.count <= 20


async def test_a_thumbnail_that_cannot_be_drawn_is_left_out(
    pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    def draw() -> bytes:
        raise ValueError("a bug")

    wall = Wall(pool)
    with wall.watch(None) as one:
        wall.inspected(inspected(draw_thumbnail=draw))
        assert await tiles_of(one, 1) == [b""]
        wall.inspected(inspected())
        assert await tiles_of(one, 1) == [b"thumbnail"]
    assert "a bug" in caplog.text


async def test_an_image_too_large_to_be_kept_is_shown_all_the_same(pool: ThreadPoolExecutor) -> None:
    wall = Wall(pool, WallLimits(anomalous_bytes=2**20))
    with wall.watch(None) as one:
        wall.inspected(inspected(image=SentImage(bytes(2**20))))
        (tile,) = (await one.update()).tiles
        assert (tile.is_kept, tile.thumbnail) == (False, b"thumbnail")
        assert wall.snapshot(None).tiles == ()


async def test_failures_refusals_and_changes_are_told(pool: ThreadPoolExecutor) -> None:
    wall, changed = Wall(pool), reference().info
    with wall.watch(None) as one, wall.watch(OTHER) as other:
        wall.failed(failed())
        wall.refused()
        wall.reference_changed(DEFAULT_REFERENCE_ID, changed)
        update = await one.update()
        assert (len(update.failures), update.failed, update.refused) == (1, 1, 1)
        assert [change.reference for change in update.changes] == [changed]
        update = await other.update()
        assert (update.failed, update.refused, update.changes) == (0, 1, ()), "refusals belong to no reference"


async def test_nothing_is_kept_of_a_deleted_reference(pool: ThreadPoolExecutor) -> None:
    wall = Wall(pool)
    with wall.watch(None):
        wall.inspected(inspected())
        wall.inspected(inspected(OTHER))
        wall.reference_changed(DEFAULT_REFERENCE_ID, None)
        snapshot = wall.snapshot(None)
        assert [tile.inspection.reference_id for tile in snapshot.tiles] == [OTHER]
        assert list(snapshot.scores) == [OTHER]


@pytest.mark.parametrize("foreign", ["", "x", "-", "0-1", "7-99999999999999999999", "-\u0661", "9" * 5000])
async def test_a_watcher_that_connects_again_learns_what_it_missed(pool: ThreadPoolExecutor, foreign: str) -> None:
    wall = Wall(pool)
    seen = wall.event_id
    for _ in range(3):
        wall.inspected(inspected())
    assert wall.snapshot(None, seen).missed == 3
    assert wall.snapshot(None, wall.event_id).missed == 0
    assert wall.snapshot(None, foreign).missed == 0
    assert wall.snapshot(None, wall.event_id + foreign).missed == 0
