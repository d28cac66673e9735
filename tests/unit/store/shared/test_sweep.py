"""What a sweep moves to the trash, leaves alone and gives back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes.faulty_objects import FaultyObjectStorage
from fakes.references import content, make_reference

from patchserve_server.domain.errors import StorageUnavailableError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.objects import MemoryObjectStorage
from patchserve_server.store.shared import DigestCache, SharedReferenceStore
from patchserve_server.store.shared.contents import SWEEP_GRACE
from patchserve_server.store.shared.surroundings import Surroundings
from patchserve_server.store.shared.sweep import SWEEP_EVERY, SweepReport, sweep

FIRST, SECOND, THIRD = (make_reference(seed=seed) for seed in (1, 2, 3))
PARCEL = ReferenceId("parcel")


class World:
    """A store in memory, whose service and server share one clock."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.objects = MemoryObjectStorage(now=lambda: self.now)
        self.surroundings = Surroundings(utc_now=lambda: self.now)
        self._folder, self._caches = folder, 0

    def pass_time(self, time: timedelta) -> None:
        self.now += time

    def store(self, objects: MemoryObjectStorage | FaultyObjectStorage | None = None) -> SharedReferenceStore:
        """A server that has nothing in its cache."""
        self._caches += 1
        cache = DigestCache(self._folder / str(self._caches), 2**30)
        return SharedReferenceStore(objects or self.objects, cache, self.surroundings)

    def sweep(self, *, is_dry_run: bool = False) -> SweepReport:
        return sweep(self.objects, self.surroundings, is_dry_run=is_dry_run)

    def keys(self, prefix: str = "") -> list[str]:
        return [listed.key for listed in self.objects.list(prefix)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def sweep_of_tomorrow(world: World) -> SweepReport:
    """What a sweep after the grace would do."""
    later = world.now + SWEEP_GRACE * 2
    return sweep(world.objects, Surroundings(utc_now=lambda: later), is_dry_run=True)


def used_once(world: World) -> None:
    """A store in which the first of three revisions is used no more."""
    for reference in (FIRST, SECOND, THIRD):
        world.store().save(reference)


def test_what_no_reference_uses_is_moved_after_the_grace_and_removed_after_another(world: World) -> None:
    used_once(world)
    before = world.keys()
    assert world.sweep() == SweepReport(used=4, young=2)
    assert world.keys() == before
    world.pass_time(SWEEP_GRACE + timedelta(seconds=1))
    swept = world.sweep()
    assert (swept.used, swept.young, len(swept.swept)) == (4, 0, 2)
    assert swept.swept_bytes > 1000
    assert sorted("trash/" + key.rpartition("/")[2] for key in swept.swept) == world.keys("trash/")
    assert len(world.keys("banks/")) == len(world.keys("manifests/")) == 2
    assert world.sweep() == SweepReport(used=4)
    world.pass_time(SWEEP_GRACE + timedelta(seconds=1))
    assert len(world.sweep().purged) == 2
    assert world.keys("trash/") == []
    assert content(world.store().load(PARCEL)) == content(THIRD)
    assert content(world.store().load_previous(PARCEL)) == content(SECOND)


def test_a_dry_run_says_the_same_and_changes_nothing(world: World) -> None:
    used_once(world)
    world.pass_time(SWEEP_GRACE * 2)
    before = world.keys()
    said = world.sweep(is_dry_run=True)
    assert world.keys() == before
    assert world.sweep() == said


def test_a_deleted_reference_leaves_its_tombstone(world: World) -> None:
    store = world.store()
    store.save(FIRST)
    store.delete(PARCEL)
    world.pass_time(SWEEP_GRACE * 2)
    assert len(world.sweep().swept) == 2
    assert world.keys("references/") == ["references/parcel"]


def test_nothing_is_swept_while_a_pointer_is_not_understood(world: World) -> None:
    used_once(world)
    world.objects.put("references/other", b'{"format_version": 2}')
    world.objects.put("references/what is this", b"")
    world.pass_time(SWEEP_GRACE * 2)
    before = world.keys()
    problems = world.sweep().problems
    assert len(problems) == 2
    assert any("version 2" in problem for problem in problems)
    assert world.keys() == before


def test_a_save_that_uses_an_old_bank_in_the_last_moment_keeps_it(world: World) -> None:
    used_once(world)
    world.pass_time(SWEEP_GRACE * 2)
    faulty = FaultyObjectStorage(world.objects)

    def save_it(method: str, key: str) -> None:
        if method == "find":  # the pointers are read, and nothing is moved yet
            faulty.before_call = lambda _method, _key: None
            world.store().save(FIRST)

    faulty.before_call = save_it
    report = sweep(faulty, world.surroundings)
    assert (report.young, report.swept) == (2, ())
    assert content(world.store().load(PARCEL)) == content(FIRST)


def test_a_save_between_the_last_look_and_the_move_finds_its_bank_in_the_trash(world: World) -> None:
    used_once(world)
    world.pass_time(SWEEP_GRACE * 2)
    faulty = FaultyObjectStorage(world.objects)

    def save_it(method: str, key: str) -> None:
        if (method, key[:6]) == ("delete", "banks/"):
            faulty.before_call = lambda _method, _key: None
            world.store().save(FIRST)

    faulty.before_call = save_it
    sweep(faulty, world.surroundings)
    assert len(world.keys("banks/")) == 2, "that of the current revision is gone"
    assert content(world.store().load(PARCEL)) == content(FIRST)
    assert len(world.keys("banks/")) == 3


def test_used_objects_that_are_in_the_trash_only_come_back(world: World) -> None:
    used_once(world)
    for folder in ("banks/", "manifests/"):
        for key in world.keys(folder):
            world.objects.copy(key, "trash/" + key.rpartition("/")[2])
            world.objects.delete(key)
    world.pass_time(SWEEP_GRACE * 2)
    report = world.sweep()
    assert len(report.returned) == 4
    assert len(report.purged) == 2
    assert content(world.store().load(PARCEL)) == content(THIRD)


def test_what_is_moved_stays_in_the_trash_for_a_grace_though_it_was_there_before(world: World) -> None:
    used_once(world)
    unused = sweep_of_tomorrow(world).swept
    for key in unused:
        world.objects.copy(key, "trash/" + key.rpartition("/")[2])
    world.pass_time(SWEEP_GRACE * 2)
    report = world.sweep()
    assert sorted(report.swept) == sorted(unused)
    assert report.purged == ()
    assert len(world.keys("trash/")) == len(unused) == 2


def test_what_killed_probes_left_is_removed_and_what_nobody_knows_stays(world: World) -> None:
    world.objects.put("probe/0123", b"x")
    world.objects.put("photos/cat.jpg", b"x")
    assert world.sweep().purged == ()
    world.pass_time(SWEEP_GRACE * 2)
    assert world.sweep().purged == ("probe/0123",)
    assert world.keys() == ["photos/cat.jpg"]


def test_one_server_sweeps_once_a_day(world: World) -> None:
    counted = FaultyObjectStorage(world.objects)
    clock_s = 0.0
    surroundings = Surroundings(utc_now=lambda: world.now, monotonic_s=lambda: clock_s)
    stores = [
        SharedReferenceStore(counted, DigestCache(world._folder / f"server {number}", 2**30), surroundings)
        for number in range(3)
    ]
    for _ in range(12 * 24 * 3):  # three days, five minutes each
        clock_s += 300
        world.pass_time(timedelta(seconds=300))
        for store in stores:
            store.maintain()
    trash_lists = sum(1 for key in counted.keys_of["list"] if key == "trash/")
    assert trash_lists in (2, 3)


def test_a_sweep_ends_when_its_server_stops_and_another_server_goes_on(world: World) -> None:
    used_once(world)
    world.pass_time(SWEEP_GRACE * 2)
    faulty, clock_s = FaultyObjectStorage(world.objects), 0.0
    surroundings = Surroundings(utc_now=lambda: world.now, monotonic_s=lambda: clock_s)
    store = SharedReferenceStore(faulty, DigestCache(world._folder / "stopping", 2**30), surroundings)

    def stop(method: str, _key: str) -> None:
        if method == "copy":
            store.close()

    faulty.before_call = stop
    clock_s += SWEEP_EVERY.total_seconds()
    with pytest.raises(StorageUnavailableError, match="This server stops"):
        store.maintain()
    assert len(world.keys("trash/")) == 1
    assert len(world.sweep().swept) == 1


def test_another_store_below_a_folder_of_this_one_is_left_alone(world: World) -> None:
    used_once(world)
    strange = ["banks/patchserve.json", "banks/other/banks/" + "0" * 64, "manifests/notes.txt", "trash/x", "banks/a b"]
    for key in strange:
        world.objects.put(key, b"x")
    for _ in range(3):
        world.pass_time(SWEEP_GRACE + timedelta(hours=1))
        world.sweep()
    assert set(strange) <= set(world.keys())


def test_a_save_of_a_server_that_was_suspended_for_days_keeps_its_content(world: World) -> None:
    objects = FaultyObjectStorage(world.objects)

    def suspend(method: str, key: str) -> None:
        if (method, key) == ("create", "references/parcel"):
            for _ in range(3):
                world.pass_time(SWEEP_GRACE + timedelta(hours=1))
                world.sweep()
            assert not world.keys("banks/")
            assert not world.keys("trash/")

    objects.before_call = suspend
    world.store(objects).save(FIRST)
    assert content(world.store().load(PARCEL)) == content(FIRST)
