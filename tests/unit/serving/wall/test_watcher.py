"""Watcher: one who reads slowly misses tiles, which are counted, and uses no more memory."""

from __future__ import annotations

import pytest
from fakes.events import OTHER, failed, inspected
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.serving.wall import Tile, Watcher, watcher
from patchserve_server.serving.wall.watcher import MAX_CHANGES, MAX_FAILURES, MAX_TILES, ReferenceChange


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "GATHER_S", 0)


def tile(number: int, *, anomalous: bool = False) -> Tile:
    event = inspected(anomalous=anomalous)
    return Tile(f"run-{number}", number, 0.0, event.origin, event.inspection, is_kept=False)


@pytest.mark.parametrize("count", [1, MAX_TILES, MAX_TILES + 1, 5 * MAX_TILES])
async def test_tiles_that_come_faster_than_they_are_read_are_counted(count: int) -> None:
    slow = Watcher(None)
    for number in range(count):
        slow.count_inspection()
        slow.add(tile(number))
    update = await slow.update()
    assert [each.number for each in update.tiles] == list(range(max(0, count - MAX_TILES), count))
    assert (update.inspected, update.not_shown) == (count, max(0, count - MAX_TILES))


@given(st.lists(st.booleans(), max_size=60))
def test_anomalies_are_not_pushed_out_by_intact_items(verdicts: list[bool]) -> None:
    slow = Watcher(None)
    for number in range(5 * MAX_TILES):
        slow.add(tile(number))
    for number, anomalous in enumerate(verdicts, 5 * MAX_TILES):
        slow.add(tile(number, anomalous=anomalous))
    assert [each.is_anomalous for each in slow._tiles[True]] == [True] * sum(verdicts)


async def test_tiles_are_shown_in_the_order_of_their_numbers() -> None:
    one = Watcher(None)
    for number, anomalous in ((3, True), (1, False), (2, True)):
        one.add(tile(number, anomalous=anomalous))
    assert [each.number for each in (await one.update()).tiles] == [1, 2, 3]


async def test_an_update_has_what_happened_since_the_last_one() -> None:
    one = Watcher(None)
    one.count_inspection()
    one.add(tile(1))
    one.add_failure(failed())
    one.add_refusals()
    one.add_change(ReferenceChange(OTHER, None))
    first = await one.update()
    assert (len(first.tiles), first.inspected, first.failed, first.refused, len(first.changes)) == (1, 1, 1, 1, 1)
    one.add_refusals()
    second = await one.update()
    assert (second.tiles, second.inspected, second.failed, second.refused, second.changes) == ((), 0, 0, 1, ())


async def test_failures_and_changes_are_bounded_too() -> None:
    slow = Watcher(None)
    for _ in range(1000):
        slow.add_failure(failed())
        slow.add_change(ReferenceChange(OTHER, None))
    update = await slow.update()
    assert (len(update.failures), update.failed, len(update.changes)) == (MAX_FAILURES, 1000, MAX_CHANGES)


def test_it_watches_one_reference_or_all() -> None:
    assert Watcher(None).watches(OTHER)
    assert Watcher(OTHER).watches(OTHER)
    assert not Watcher(OTHER).watches(DEFAULT_REFERENCE_ID)
