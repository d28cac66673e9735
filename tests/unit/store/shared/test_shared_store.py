"""A shared store whose objects are damaged, lost, swept or from a newer server; and what its requests are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.bucket_servers import Clock, Fault, KilledError, Server, indexed, lost_answer
from fakes.references import content, make_reference

from patchserve_server.domain.errors import (
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    StartupError,
    StorageUnavailableError,
)
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.objects import MemoryObjectStorage, ObjectChangedError, Version
from patchserve_server.store.shared.keys import BANKS, MANIFESTS, ROOT, SHARDS, TRASH, pointer_key, shard_key, shard_of

Started = Callable[[], Server]
PARCEL, BELT = ReferenceId("parcel"), ReferenceId("belt")
FIRST, SECOND, THIRD = (make_reference(seed=seed) for seed in (1, 2, 3))


def key_below(bucket: MemoryObjectStorage, folder: str) -> str:
    (listed,) = bucket.list(folder)
    return listed.key


def data_of(bucket: MemoryObjectStorage, key: str) -> bytes:
    stored = bucket.get(key, max_bytes=2**30)
    assert stored is not None
    return stored.data


def test_a_quiet_poll_is_one_request(started: Started) -> None:
    server = started()
    server.store.save(FIRST)
    server.poll()
    server.bucket.calls.clear()
    for _ in range(5):
        server.poll()
    assert server.bucket.calls == {"get": 5}


def test_a_change_costs_other_servers_two_requests(started: Started) -> None:
    server, other = started(), started()
    server.store.save(FIRST)
    other.poll()
    assert other.known == {PARCEL: FIRST.revision}
    assert other.bucket.calls == {"get": 2}, "the root and one shard"


def test_a_change_has_thirteen_requests(started: Started) -> None:
    server = started()
    server.store.save(FIRST)
    server.bucket.calls.clear()
    server.store.save(SECOND)
    assert server.bucket.calls == {"get": 6, "find": 2, "create": 2, "replace": 3}
    server.bucket.calls.clear()
    server.store.delete(PARCEL)
    assert server.bucket.calls == {"get": 5, "replace": 3}


def test_equal_content_is_not_put_again_unless_a_sweep_may_take_it(started: Started, clock: Clock) -> None:
    server = started()
    server.store.save(FIRST)
    server.bucket.calls.clear()
    server.store.save(FIRST)
    assert server.bucket.calls["create"] + server.bucket.calls["put"] == 0
    clock.sleep(13 * 3600)  # more than half of the grace
    server.store.save(FIRST)
    assert server.bucket.calls["put"] == 2


def test_a_bank_that_was_swept_wrongly_comes_back_from_the_trash(bucket: MemoryObjectStorage, started: Started) -> None:
    started().store.save(FIRST)
    for folder in (BANKS, MANIFESTS):
        key = key_below(bucket, folder)
        bucket.copy(key, TRASH + key.removeprefix(folder))
        bucket.delete(key)
    other = started().store
    assert content(other.load(PARCEL)) == content(FIRST)
    assert key_below(bucket, BANKS)


@pytest.mark.parametrize("folder", [BANKS, MANIFESTS])
@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "missing"])
def test_damaged_content_is_refused_by_name_and_mended_by_the_next_save(
    bucket: MemoryObjectStorage, started: Started, folder: str, damage: str
) -> None:
    started().store.save(FIRST)
    key = key_below(bucket, folder)
    data = data_of(bucket, key)
    if damage == "missing":
        bucket.delete(key)
    else:
        flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
        bucket.put(key, {"flipped": flipped, "cut": data[:-1], "longer": data + b" "}[damage])
    store = started().store
    with pytest.raises(ReferenceDamagedError, match=r'"parcel" is damaged: its (bank file|manifest) .*Load it again'):
        store.load(PARCEL)
    store.save(FIRST)
    assert content(started().store.load(PARCEL)) == content(FIRST)


def test_a_damaged_copy_on_disk_is_fetched_again(started: Started, tmp_path: Path) -> None:
    server = started()
    server.store.save(FIRST)
    for path in (tmp_path / "cache-0").iterdir():
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    assert content(server.store.load(PARCEL)) == content(FIRST)
    server.bucket.calls.clear()
    assert content(server.store.load(PARCEL)) == content(FIRST)
    assert server.bucket.calls == {"get": 1}, "only the pointer: the copies are whole again"


@pytest.mark.parametrize("how", ["saved", "loaded", "restored", "described after an earlier load"])
def test_copies_of_what_a_server_has_seen_are_read_without_a_request(started: Started, how: str) -> None:
    server, other = started(), started()
    other.store.save(FIRST)
    other.store.save(SECOND)
    wanted = SECOND
    if how == "saved":
        server.store.save(wanted := THIRD)
    elif how == "restored":
        server.store.load_previous(PARCEL)
        server.store.restore(PARCEL, FIRST.revision)
        wanted = FIRST
    else:
        server.store.load(PARCEL)
    info = server.store.describe(PARCEL) if how != "saved" else replace(wanted.info, previous_revision=SECOND.revision)
    server.bucket.calls.clear()
    copied = server.store.load_copy(info)
    assert copied is not None
    assert content(copied) == content(wanted)
    assert (copied.info, copied.previous_revision) == (info, info.previous_revision)
    assert server.bucket.calls == {}


def test_there_is_no_copy_of_what_was_only_described_of_what_is_damaged_or_of_another_revision(
    started: Started, tmp_path: Path
) -> None:
    server, other = started(), started()
    other.store.save(FIRST)
    info = server.store.describe(PARCEL)
    assert server.store.load_copy(info) is None, "the bank was never read"
    server.store.load(PARCEL)
    assert server.store.load_copy(replace(info, revision=SECOND.revision)) is None
    for path in (tmp_path / "cache-0").iterdir():
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    assert server.store.load_copy(info) is None


def test_a_damaged_pointer_is_refused_by_name_replaced_by_a_save_and_removed_by_a_delete(
    bucket: MemoryObjectStorage, started: Started
) -> None:
    server = started()
    server.store.save(FIRST)
    server.poll()
    changes: Sequence[Callable[[], object]] = (
        lambda: server.store.save(SECOND, base=FIRST.revision),
        lambda: server.store.delete(PARCEL),
    )
    for change in changes:
        bucket.put(pointer_key(PARCEL), b"{}")
        for read in (server.store.load, server.store.describe, server.store.look_up, server.store.load_previous):
            with pytest.raises(ReferenceDamagedError, match='"parcel"'):
                read(PARCEL)
        with pytest.raises(ReferenceDamagedError, match='"parcel" cannot be restored'):
            server.store.restore(PARCEL, FIRST.revision)
        server.poll()
        assert PARCEL in server.known, "it is served as long as it is held"
        change()
        server.poll()
    assert server.known == {}


@pytest.mark.parametrize("change", ["save", "delete"])
def test_a_pointer_of_a_newer_server_is_never_replaced(
    bucket: MemoryObjectStorage, started: Started, change: str
) -> None:
    server = started()
    server.store.save(FIRST)
    newer = json.dumps(json.loads(data_of(bucket, pointer_key(PARCEL))) | {"format_version": 2}).encode()
    bucket.put(pointer_key(PARCEL), newer)
    with pytest.raises(ReferenceDamagedError, match="format version 2; this server reads version 1 only"):
        server.store.save(SECOND) if change == "save" else server.store.delete(PARCEL)
    assert data_of(bucket, pointer_key(PARCEL)) == newer


@pytest.mark.parametrize("key", [ROOT, shard_key(shard_of(PARCEL))])
def test_an_index_of_a_newer_server_is_never_replaced(bucket: MemoryObjectStorage, started: Started, key: str) -> None:
    server = started()
    server.store.save(FIRST)
    newer = json.dumps(json.loads(data_of(bucket, key)) | {"format_version": 2}).encode()
    bucket.put(key, newer)
    with pytest.raises(StorageUnavailableError, match="Update this server"):
        server.store.save(SECOND)
    assert data_of(bucket, key) == newer


def test_a_store_of_a_newer_server_is_refused(bucket: MemoryObjectStorage, started: Started) -> None:
    bucket.put("patchserve.json", b'{"format_version": 2, "store_id": "a", "proven_services": []}')
    with pytest.raises(StartupError, match="format version 2"):
        started()


@pytest.mark.parametrize("damage", ["missing", "damaged", "another"])
@pytest.mark.parametrize("what", ["root", "shard", "all"])
def test_a_lost_index_ends_nothing_and_is_made_again(
    bucket: MemoryObjectStorage, started: Started, clock: Clock, damage: str, what: str
) -> None:
    server = started()
    names = [f"item-{number:02}" for number in range(12)]
    for name in names:
        server.store.save(make_reference(name))
    server.store.delete(ReferenceId(names.pop()))
    server.poll()
    shard = shard_key(shard_of(ReferenceId(names[0])))
    shards = [each.key for each in bucket.list(SHARDS)]
    for key in {"root": [ROOT], "shard": [shard], "all": [ROOT, *shards]}[what]:
        if damage == "missing":
            bucket.delete(key)
        else:
            bucket.put(key, b"{" if damage == "damaged" else data_of(bucket, shards[-1]))
    server.store.save(make_reference(names[0], 1))  # what changes has its part of the index again
    clock.sleep(3600)
    server.poll()
    assert sorted(server.known) == names
    server.store.maintain()
    server.poll()
    assert sorted(indexed(bucket)) == sorted(server.known) == names
    assert started().store.list_ids() == names


def test_a_server_that_starts_without_an_index_makes_it(bucket: MemoryObjectStorage, started: Started) -> None:
    started().store.save(FIRST)
    for listed in [*bucket.list("index/")]:
        bucket.delete(listed.key)
    assert started().known == {PARCEL: FIRST.revision}


def test_a_pointer_that_somebody_removed_counts_as_deleted_after_a_repair(
    bucket: MemoryObjectStorage, started: Started, clock: Clock
) -> None:
    server = started()
    server.store.save(FIRST)
    server.store.save(make_reference("belt"))
    server.poll()
    bucket.delete(pointer_key(PARCEL))
    bucket.put("references/not an id", b"")
    clock.sleep(3600)
    server.store.maintain()
    server.poll()
    assert list(server.known) == [BELT]
    with pytest.raises(ReferenceNotFoundError):
        server.store.load(PARCEL)


def killed_before_the_index(server: Server, change: Callable[[], object]) -> None:
    server.bucket.before_call = lambda _method, key: kill() if key.startswith("index/") else None
    with suppress(KilledError):
        change()


def kill() -> None:
    raise KilledError


def test_the_index_learns_of_the_change_of_a_killed_server_by_a_repair_of_one_other_server(
    bucket: MemoryObjectStorage, started: Started, clock: Clock
) -> None:
    killed, *others = (started() for _ in range(4))
    killed.store.save(FIRST)
    killed_before_the_index(killed, lambda: killed.store.save(SECOND))
    assert indexed(bucket) == {PARCEL: FIRST.revision}
    clock.sleep(3600)
    for server in others:
        server.store.maintain()
    assert indexed(bucket) == {PARCEL: SECOND.revision}
    repairs = [server.bucket.keys_of["list"].count("references/") for server in others]
    assert repairs == [1, 0, 0], "by the first one that comes"


def test_the_index_learns_of_it_by_whoever_sees_the_pointer(
    bucket: MemoryObjectStorage, started: Started, clock: Clock
) -> None:
    killed, other = started(), started()
    killed.store.save(FIRST)
    killed_before_the_index(killed, lambda: killed.store.delete(PARCEL))
    assert other.store.look_up(PARCEL) is None
    other.poll()
    assert other.known == {PARCEL: FIRST.revision}, "perhaps the other server only takes its time"
    clock.sleep(6)
    other.poll()
    other.poll()
    assert other.known == indexed(bucket) == {}


def test_a_delete_that_is_tried_again_tells_the_index(bucket: MemoryObjectStorage, started: Started) -> None:
    killed, other = started(), started()
    killed.store.save(FIRST)
    killed_before_the_index(killed, lambda: killed.store.delete(PARCEL))
    with pytest.raises(ReferenceNotFoundError):
        other.store.delete(PARCEL)
    assert indexed(bucket) == {}


def test_a_server_that_cannot_write_still_polls(started: Started) -> None:
    server, other = started(), started()
    server.bucket.break_at(Fault(6, is_after=True, error=lost_answer))
    with pytest.raises(StorageUnavailableError, match='It is not known whether reference "parcel" was changed'):
        server.store.save(FIRST)
    server.bucket.before_call = lambda method, _key: refuse() if method in {"create", "replace"} else None
    other.store.save(make_reference("belt"))
    server.poll()
    assert BELT in server.known


def refuse() -> None:
    raise StorageUnavailableError("Forbidden.")


def test_a_change_that_the_index_could_not_be_told_says_so(started: Started) -> None:
    server, other = started(), started()
    server.bucket.break_at(Fault(9, is_after=False, error=lost_answer))
    with pytest.raises(StorageUnavailableError, match='"parcel" was changed, but other servers may not know'):
        server.store.save(FIRST)
    server.poll()
    other.poll()
    assert other.known == {PARCEL: FIRST.revision}


@pytest.mark.parametrize("swaps", [0, 1, 2])
@pytest.mark.parametrize("is_written", [True, False])
def test_a_swap_whose_answer_was_lost_is_told_from_the_nonces(
    bucket: MemoryObjectStorage, started: Started, swaps: int, is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage finds something else when it tries a swap again: was ours there before?"""
    server, other = started(), started()
    server.store.save(FIRST)
    replace = server.bucket.replace

    def lossy_replace(key: str, data: bytes, version: Version) -> Version:
        if key != pointer_key(PARCEL):
            return replace(key, data, version)
        if is_written:
            replace(key, data, version)
        for number in range(swaps):
            other.store.save(make_reference(seed=5 + number))
        if is_written and not swaps:
            found = bucket.find(key)
            assert found is not None
            return found.version
        raise ObjectChangedError(key, may_have_been_written=True)

    monkeypatch.setattr(server.bucket, "replace", lossy_replace)
    if not swaps and not is_written:
        with pytest.raises(StorageUnavailableError, match="not known"):
            server.store.save(SECOND, base=FIRST.revision)
    elif is_written and swaps < 2:
        server.store.save(SECOND, base=FIRST.revision)
    elif swaps < 2:
        with pytest.raises(ReferenceChangedError):
            server.store.save(SECOND, base=FIRST.revision)
    else:
        with pytest.raises(StorageUnavailableError, match="It is not known whether"):
            server.store.save(SECOND, base=FIRST.revision)
    assert started().known[PARCEL] == indexed(bucket)[PARCEL]


def test_a_lease_that_somebody_overwrote_is_taken_as_lost(
    bucket: MemoryObjectStorage, started: Started, clock: Clock
) -> None:
    server = started()
    server.store.save(FIRST)
    bucket.put("leases/repair", bytes(1_000_000))
    clock.sleep(3600)
    server.store.maintain()
    assert data_of(bucket, "leases/repair").startswith(b"{")
