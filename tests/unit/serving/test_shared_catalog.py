"""Catalogs of several servers on one store: each sees what the others change, and none takes back what it has said."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fakes.catalogs import CatalogFactory, current, publish, view_of
from fakes.gray import CREATED, reference, scorer
from fakes.shared_store import FakeSharedStore, SharedMemory

from patchserve_server.domain.errors import (
    PatchserveError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    StorageFullError,
    StorageUnavailableError,
)
from patchserve_server.domain.events import Events
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.known_references import KnownReferences

DEFAULT = DEFAULT_REFERENCE_ID
OTHER_REVISION = Revision("0" * 64)
A, B, C = (ReferenceId(name) for name in "abc")


class Heard(Events):
    """The changes that listeners of all events hear of."""

    def __init__(self) -> None:
        self.changes: list[tuple[ReferenceId, Revision | None]] = []

    def reference_changed(self, reference_id: ReferenceId, reference: ReferenceInfo | None) -> None:
        self.changes.append((reference_id, None if reference is None else reference.revision))


class Replica:
    """One server: its catalog, and its end of the store."""

    def __init__(self, memory: SharedMemory, factory: CatalogFactory, **options: object) -> None:
        self.store = FakeSharedStore(memory)
        self.catalog: Catalog = factory.replica(self.store, **options)  # type: ignore[arg-type]
        self.poll = view_of(self.catalog).poll


@pytest.fixture
def memory() -> SharedMemory:
    return SharedMemory()


@pytest.fixture
def one(memory: SharedMemory, factory: CatalogFactory) -> Replica:
    return Replica(memory, factory)


@pytest.fixture
def other(memory: SharedMemory, factory: CatalogFactory) -> Replica:
    return Replica(memory, factory)


async def test_what_one_publishes_another_one_knows_after_a_poll_and_reads_when_it_is_used(
    one: Replica, other: Replica
) -> None:
    published = await publish(one.catalog, reference())
    await other.poll()
    assert other.catalog.usable_count == 1
    assert await other.catalog.has(DEFAULT)
    assert other.catalog.find(DEFAULT) is None
    assert (other.store.look_ups, other.store.loads, other.catalog.open_ids()) == ([], [], [])
    assert await other.catalog.info(DEFAULT) == published.info == other.catalog.find(DEFAULT)
    assert other.store.loads == []
    assert await current(other.catalog) == published.info
    assert await current(other.catalog) == published.info
    assert (other.store.look_ups, other.store.loads) == ([DEFAULT], [DEFAULT])


async def test_an_unknown_name_and_an_unknown_revision_are_looked_up_at_once(one: Replica, other: Replica) -> None:
    with pytest.raises(ReferenceNotFoundError):
        await current(other.catalog)
    first = await publish(one.catalog, reference(level=1))
    assert await current(other.catalog) == first.info
    second = await publish(one.catalog, reference(level=2))
    assert await current(other.catalog) == first.info, "nothing has told of the change"
    with pytest.raises(RevisionMismatchError):
        await current(other.catalog, expected=OTHER_REVISION)
    assert await current(other.catalog) == second.info, "it was looked up for the call before"
    third = await publish(one.catalog, reference(level=3))
    assert await current(other.catalog, expected=third.revision) == third.info


async def test_a_replacement_elsewhere_is_told_and_users_keep_the_old_revision(one: Replica, other: Replica) -> None:
    old = await publish(one.catalog, reference(level=1))
    heard: list[ReferenceInfo | None] = []
    async with other.catalog.use(DEFAULT) as in_use:
        with other.catalog.listen(DEFAULT, heard.append):
            new = await publish(one.catalog, reference(level=2))
            assert heard == []
            await other.poll()
            assert heard == [new.info]
            assert in_use.info == old.info
            assert other.catalog.bytes_by_state()["retired"] == old.model.bank.nbytes
            assert await current(other.catalog) == new.info
            await other.poll()
            assert heard == [new.info], "once"
    assert other.catalog.bytes_by_state()["retired"] == 0


async def test_a_deletion_elsewhere_is_told_and_ends_the_use(
    memory: SharedMemory, factory: CatalogFactory, one: Replica
) -> None:
    events = Heard()
    other = Replica(memory, factory, events=events)
    await publish(one.catalog, reference())
    await current(other.catalog)
    heard: list[ReferenceInfo | None] = []
    with other.catalog.listen(DEFAULT, heard.append):
        await one.catalog.delete(DEFAULT)
        assert await current(other.catalog), "within the time of a poll"
        await other.poll()
    assert heard == [None]
    assert events.changes[-1] == (DEFAULT, None)
    assert (other.catalog.open_ids(), other.catalog.usable_count) == ([], 0)
    with pytest.raises(ReferenceNotFoundError):
        await current(other.catalog)


async def test_a_change_of_the_description_alone_is_told(one: Replica, other: Replica) -> None:
    published = await publish(one.catalog, reference())
    await current(other.catalog)
    again = replace(published, update_time=CREATED + timedelta(hours=1))
    heard: list[ReferenceInfo | None] = []
    with other.catalog.listen(DEFAULT, heard.append):
        await one.catalog.publish(again, scorer(again))
        await other.poll()
    assert heard == [again.info]
    assert await current(other.catalog) == again.info
    assert other.store.loads == [DEFAULT], "the bank is the same, and stays open"


async def test_of_two_appends_one_loses_and_succeeds_on_the_new_base(one: Replica, other: Replica) -> None:
    base = (await publish(one.catalog, reference(level=1))).info
    await current(other.catalog)
    won = await publish(one.catalog, reference(level=2), replaces=base)
    with pytest.raises(ReferenceChangedError):
        await publish(other.catalog, reference(level=3), replaces=base)
    assert await current(other.catalog) == won.info, "the next attempt has the new base"
    await publish(other.catalog, reference(level=4), replaces=won.info)


async def test_a_load_replaces_whatever_is_current(one: Replica, other: Replica) -> None:
    await publish(one.catalog, reference(level=1))
    await current(other.catalog)
    await publish(one.catalog, reference(level=2))
    last = await publish(other.catalog, reference(level=3))
    await one.poll()
    assert await current(one.catalog) == last.info


async def test_a_delete_says_what_it_has_deleted_and_obeys_an_expected_revision(one: Replica, other: Replica) -> None:
    old = await publish(one.catalog, reference(level=1))
    await current(other.catalog)
    new = await publish(one.catalog, reference(level=2))
    with pytest.raises(RevisionMismatchError):
        await other.catalog.delete(DEFAULT, OTHER_REVISION)
    third = await publish(one.catalog, reference(level=3))
    assert await other.catalog.delete(DEFAULT) == third.revision, "and not what this server knew"
    with pytest.raises(ReferenceNotFoundError):
        await one.catalog.delete(DEFAULT, third.revision)
    assert len({old.revision, new.revision, third.revision}) == 3


async def test_the_previous_revision_of_another_server_is_restored_and_listed(one: Replica, other: Replica) -> None:
    old = await publish(one.catalog, reference(level=1))
    new = await publish(one.catalog, reference(level=2))
    assert [info.revision for info in await other.catalog.history(DEFAULT)] == [new.revision, old.revision]
    assert (await other.catalog.restore(DEFAULT)).revision == old.revision
    await one.poll()
    assert (await current(one.catalog)).revision == old.revision
    assert (await one.catalog.tune(DEFAULT, 2.0)).sensitivity == 2.0


async def test_an_index_that_lags_behind_takes_nothing_back(one: Replica, other: Replica) -> None:
    old = await publish(one.catalog, reference(level=1))
    await other.poll()
    new = await publish(one.catalog, reference(level=2))
    assert await current(other.catalog, expected=new.revision) == new.info
    heard: list[ReferenceInfo | None] = []
    with other.catalog.listen(DEFAULT, heard.append):
        other.store.lagging = {DEFAULT: old.revision}
        await other.poll()
    assert await current(other.catalog) == new.info
    assert heard == []


async def test_a_poll_that_began_before_a_change_takes_nothing_back(one: Replica, other: Replica) -> None:
    await publish(one.catalog, reference(level=1))
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    new = reference(level=2)

    def change_meanwhile(operation: str) -> None:
        if operation == "poll" and not changed.is_set():
            asyncio.run_coroutine_threadsafe(change(), loop).result(10)

    async def change() -> None:
        changed.set()
        other.store.memory.save(new)
        await current(other.catalog, expected=new.revision)

    other.store.before_answer = change_meanwhile
    await other.poll()
    assert await current(other.catalog) == new.info
    assert view_of(other.catalog).is_current(new.info)


async def test_a_look_up_that_began_before_a_change_takes_nothing_back(one: Replica, other: Replica) -> None:
    await publish(one.catalog, reference(level=1))
    loop, new = asyncio.get_running_loop(), reference(level=2)
    changed: list[str] = []

    def change_meanwhile(operation: str) -> None:
        if operation == "look_up" and not changed:
            changed.append(operation)
            asyncio.run_coroutine_threadsafe(publish(other.catalog, new), loop).result(10)

    other.store.before_answer = change_meanwhile
    assert await other.catalog.info(DEFAULT) == new.info
    assert await current(other.catalog) == new.info


async def test_while_the_store_is_away_what_is_open_serves_and_nothing_changes(
    memory: SharedMemory, one: Replica, other: Replica
) -> None:
    held = await publish(one.catalog, reference("a"))
    await publish(one.catalog, reference("b"))
    await other.poll()
    await current(other.catalog, "a")
    memory.away = True
    with pytest.raises(StorageUnavailableError):
        await other.poll()
    before = list(other.store.look_ups)
    assert await current(other.catalog, "a") == held.info
    attempts = [
        publish(other.catalog, reference("a", level=2)),
        other.catalog.delete(A),
        other.catalog.tune(A, 2.0),
        other.catalog.restore(A),
        current(other.catalog, "b"),
        current(other.catalog, "unknown"),
        current(other.catalog, "a", OTHER_REVISION),
        other.catalog.page("", 10),
    ]
    for attempt in attempts[:3] + attempts[4:]:
        with pytest.raises(StorageUnavailableError) as caught:
            await attempt
        assert caught.value.retry_after_s
    with pytest.raises(PatchserveError):
        await attempts[3]
    assert other.store.look_ups == before, "a store that is away is not asked for each call"
    assert not (await other.catalog.store_status()).is_reachable
    memory.away = False
    await other.poll()
    status = await other.catalog.store_status()
    assert (status.is_reachable, status.is_shared, status.url, status.kind) == (True, True, "fake://store", "fake")
    assert await current(other.catalog, "b")
    await publish(other.catalog, reference("a", level=2))


async def left_memory(memory: SharedMemory, factory: CatalogFactory, one: Replica, *, told: bool = True) -> Replica:
    """A server that has described A, B and C, of which B and C are open and A and B have been; the store is away."""
    size = reference(images=3).model.bank.nbytes
    other = Replica(memory, factory, max_bytes=2 * size)
    for name in (A, B, C):
        await publish(one.catalog, reference(name, images=3))
        await current(other.catalog, name)
    assert other.catalog.open_ids() == [B, C]
    await other.poll()
    other.store.loads.clear()
    memory.away = True
    if told:
        with pytest.raises(StorageUnavailableError):
            await other.poll()
    return other


@pytest.mark.parametrize("told", [True, False], ids=["a poll has failed", "no poll has failed yet"])
async def test_while_the_store_is_away_what_left_memory_opens_from_its_copy(
    memory: SharedMemory, factory: CatalogFactory, one: Replica, told: bool
) -> None:
    other = await left_memory(memory, factory, one, told=told)
    for name in (A, B, C, A):
        async with other.catalog.use(name) as opened:
            assert opened.info == reference(name, images=3).info
    assert other.store.loads == [], "and the store is not asked when it is known to be away"
    other.store.copies.clear()
    with pytest.raises(StorageUnavailableError, match="did not answer" if not told else "cannot be reached now"):
        await current(other.catalog, B)


@pytest.mark.parametrize("is_deleted", [False, True], ids=["replaced", "deleted"])
async def test_what_opened_from_its_copy_is_not_served_any_more_when_the_store_is_back_and_has_something_else(
    memory: SharedMemory, factory: CatalogFactory, one: Replica, is_deleted: bool
) -> None:
    other = await left_memory(memory, factory, one)
    assert await current(other.catalog, A) == reference(A, images=3).info
    memory.away = False
    if is_deleted:
        await one.catalog.delete(A)
    else:
        new = await publish(one.catalog, reference(A, level=2, images=3))
    del memory.changed[-1]  # the server that made this change was killed before it told the index
    await other.poll()
    if is_deleted:
        with pytest.raises(ReferenceNotFoundError):
            await current(other.catalog, A)
    else:
        assert await current(other.catalog, A) == new.info


async def test_what_became_of_a_change_without_an_answer_is_found_out(one: Replica) -> None:
    old, new = await publish(one.catalog, reference(level=1)), reference(level=2)

    def lose_answer(operation: str) -> None:
        if operation == "save":
            raise StorageUnavailableError("The answer was lost.", 1.0)

    one.store.before_answer = lose_answer
    with pytest.raises(StorageUnavailableError):
        await publish(one.catalog, new)
    one.store.memory.changed.clear()  # the index was not reached
    one.store._seen = 0
    assert await current(one.catalog) == old.info
    await one.poll()
    assert await current(one.catalog) == new.info


async def test_a_bank_that_is_replaced_while_it_is_opened_is_not_served(one: Replica, other: Replica) -> None:
    await publish(one.catalog, reference(level=1))
    await other.poll()
    await other.catalog.info(DEFAULT)
    new = await publish(one.catalog, reference(level=2))
    assert await current(other.catalog) == new.info, "the store has no longer the revision that was described"
    await one.catalog.delete(DEFAULT)
    other.catalog._open.retire(DEFAULT)
    with pytest.raises(ReferenceNotFoundError):
        await current(other.catalog)


async def test_a_damaged_reference_is_reported_until_it_is_replaced(one: Replica, other: Replica) -> None:
    await publish(one.catalog, reference(level=1))
    other.store.damaged[DEFAULT] = ReferenceDamagedError(DEFAULT, "damaged")
    for _ in range(3):
        with pytest.raises(ReferenceDamagedError):
            await current(other.catalog)
    assert len(other.store.look_ups) == 1, "it is not read for each call"
    assert (await other.catalog.page("", 10))[0] == []
    other.store.damaged.clear()
    new = await publish(one.catalog, reference(level=2))
    await other.poll()
    assert await current(other.catalog) == new.info


async def test_a_look_up_that_fails_for_a_while_takes_nothing_away(one: Replica, other: Replica) -> None:
    old = await publish(one.catalog, reference(level=1))
    await current(other.catalog)
    new = await publish(one.catalog, reference(level=2))
    other.store.damaged[DEFAULT] = StorageFullError("The disk of the cache is full.")
    await other.poll()
    assert await current(other.catalog) == old.info
    other.store.damaged.clear()
    await other.poll()
    assert await current(other.catalog) == new.info


async def test_a_bug_in_a_look_up_does_not_keep_what_was_deleted(one: Replica, other: Replica) -> None:
    await publish(one.catalog, reference())
    await current(other.catalog)
    await one.catalog.delete(DEFAULT)
    faults = [ValueError("a bug")]

    def fail_once(operation: str) -> None:
        if operation == "look_up" and faults:
            raise faults.pop()

    other.store.before_answer = fail_once
    with pytest.raises(ValueError, match="a bug"):
        await other.poll()
    await other.poll()
    assert other.catalog.find(DEFAULT) is None


async def test_listeners_of_all_events_hear_of_every_deletion(
    memory: SharedMemory, factory: CatalogFactory, one: Replica
) -> None:
    events = Heard()
    other = Replica(memory, factory, events=events)
    await publish(one.catalog, reference())
    await other.poll()
    assert events.changes == []
    await one.catalog.delete(DEFAULT)
    await other.poll()
    assert events.changes == [(DEFAULT, None)]


async def test_many_calls_for_one_name_look_it_up_together(one: Replica, other: Replica) -> None:
    published = await publish(one.catalog, reference())
    assert set(await asyncio.gather(*(current(other.catalog) for _ in range(50)))) == {published.info}
    assert len(other.store.look_ups) <= 2
    assert other.store.loads == [DEFAULT]


async def test_look_ups_of_what_is_not_known_are_limited_and_others_are_not(
    one: Replica, other: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    for level in range(3):
        await publish(one.catalog, reference(f"known-{level}", level))
    await other.poll()
    names = [await failure(other.catalog, f"unknown-{number}") for number in range(400)]
    assert set(names) == {"REFERENCE_NOT_FOUND"}, "the last poll has told of no such reference"
    assert len(other.store.look_ups) < 300
    assert caplog.text.count("too much that is not known here") == 1
    revisions = [await failure(other.catalog, "known-0", OTHER_REVISION) for _ in range(400)]
    assert (revisions[0], set(revisions)) == ("REVISION_MISMATCH", {"REVISION_MISMATCH", "QUEUE_FULL"})
    for level in range(3):
        assert await current(other.catalog, f"known-{level}")


async def failure(catalog: Catalog, reference_id: str, expected: Revision | None = None) -> str:
    with pytest.raises(PatchserveError) as caught:
        await current(catalog, reference_id, expected)
    return caught.value.reason


async def test_pages_of_many_references_describe_only_what_they_show(one: Replica, other: Replica) -> None:
    stored = reference(images=1)
    for number in range(10_000):
        one.store.memory.save(replace(stored, reference_id=ReferenceId(f"r{number:05}")))
    await other.poll()
    assert (other.catalog.usable_count, other.store.look_ups) == (10_000, [])
    first, has_more = await other.catalog.page("", 50)
    assert (len(first), has_more, len(other.store.look_ups)) == (50, True, 50)
    for number in range(50, 100):  # the other server deletes what comes next
        one.store.memory.delete(ReferenceId(f"r{number:05}"))
    second, _ = await other.catalog.page(first[-1].reference_id, 50)
    assert [info.reference_id for info in second] == [f"r{number:05}" for number in range(100, 150)]
    last, has_more = await other.catalog.page("r09990", 50)
    assert ([info.reference_id for info in last], has_more) == (
        [f"r{number:05}" for number in range(9991, 10_000)],
        False,
    )


class Counted(ThreadPoolExecutor):
    """Knows how many look-ups it had at once, those that wait included."""

    def __init__(self) -> None:
        super().__init__(1)
        self.now = self.most = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.now += 1
        self.most = max(self.most, self.now)
        future = super().submit(*args, **kwargs)
        future.add_done_callback(self._end)
        return future

    def _end(self, _: Future[Any]) -> None:
        self.now -= 1


async def test_pages_leave_threads_for_look_ups_that_are_urgent(one: Replica, other: Replica) -> None:
    for number in range(50):
        one.store.memory.save(replace(reference(images=1), reference_id=ReferenceId(f"r{number:05}")))
    await other.poll()
    view = view_of(other.catalog)
    with Counted() as looking_up:
        view._sharing = replace(view._sharing, looking_up=looking_up)
        pages = await asyncio.gather(*(other.catalog.page(f"r{number:05}", 20) for number in range(0, 40, 5)))
    assert [len(infos) for infos, _ in pages] == [20] * 6 + [19, 14]
    assert 1 <= looking_up.most <= 4


async def test_descriptions_are_bounded_and_those_in_use_stay(
    memory: SharedMemory, factory: CatalogFactory, one: Replica
) -> None:
    told: list[tuple[str, bool, bool]] = []
    known = KnownReferences(lambda each, what, is_news: told.append((each, what is None, is_news)))
    other = Replica(memory, factory, known=known)
    view_of(other.catalog)._max_described = 2
    for name in (A, B, C):
        await publish(one.catalog, reference(name, images=2))
    async with other.catalog.use(A):
        await other.catalog.info(B)
        await other.catalog.info(C)
        assert other.catalog.find(A) is not None
        assert other.catalog.find(B) is None
        assert told[-1] == (B, True, False), "a description that is forgotten is no news"
        assert await other.catalog.has(B)
        await one.catalog.delete(B)
        await other.poll()
        assert not await other.catalog.has(B)


async def test_banks_leave_memory_for_others(memory: SharedMemory, factory: CatalogFactory, one: Replica) -> None:
    size = reference(images=3).model.bank.nbytes
    other = Replica(memory, factory, max_bytes=2 * size)
    for name in (A, B, C):
        await publish(one.catalog, reference(name, images=3))
    for used in "abca":
        await current(other.catalog, used)
    assert other.catalog.open_ids() == ["c", "a"]
    assert other.store.loads == [A, B, C, A]


async def test_a_newer_change_of_another_server_that_is_learned_before_an_own_one_returns_is_found_again(
    memory: SharedMemory,
) -> None:
    """The own change is the older one, and no later poll tells of the newer one: it was told already."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as storage, ThreadPoolExecutor(2) as opening:
        one = Replica(memory, CatalogFactory(storage, opening))
        await publish(one.catalog, reference(level=1))

        def change_and_poll(operation: str) -> None:
            if operation == "save":
                memory.save(reference(level=3))
                asyncio.run_coroutine_threadsafe(one.poll(), loop).result()

        one.store.before_answer = change_and_poll
        await publish(one.catalog, reference(level=2))
        await one.poll()
        assert (await current(one.catalog)).revision == reference(level=3).revision
