"""A bucket in which somebody has put what no server writes, and servers whose clocks are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.bucket_servers import Clock, Server, indexed
from fakes.references import make_reference

from patchserve_server.domain.errors import ReferenceDamagedError, StorageUnavailableError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.damage import DamageError
from patchserve_server.store.objects import MemoryObjectStorage
from patchserve_server.store.shared import index_objects
from patchserve_server.store.shared.index_objects import decode_shard
from patchserve_server.store.shared.keys import LEASES, pointer_key, shard_key, shard_of
from patchserve_server.store.shared.lease import Leases

Started = Callable[[], Server]
PARCEL = ReferenceId("parcel")
FIRST = make_reference(seed=1)
DAY = timedelta(days=1)


def edit(bucket: MemoryObjectStorage, key: str, change: Callable[[dict[str, Any]], None]) -> None:
    stored = bucket.get(key, max_bytes=2**20)
    assert stored is not None
    document = json.loads(stored.data)
    change(document)
    bucket.put(key, json.dumps(document).encode())


@pytest.mark.parametrize(
    "size",
    [
        ("bank", "size_bytes", 10**18),
        ("bank", "size_bytes", 10**400),
        ("bank", "array_bytes", 10**18),
        ("bank", "image_count", 10**10),
        ("bank", "vector_count", 2**31),
        ("bank", "height_px", 2**31),
        ("manifest", "size_bytes", 10**12),
    ],
)
def test_a_pointer_to_something_huge_is_damaged_and_costs_no_more(
    bucket: MemoryObjectStorage, started: Started, tmp_path: Path, size: tuple[str, str, int]
) -> None:
    part, name, value = size
    started().store.save(FIRST)
    server = started()
    server.store.load(PARCEL)
    kept = {path.name for path in (tmp_path / "cache-1").iterdir()}
    edit(bucket, pointer_key(PARCEL), lambda pointer: pointer["current"][part].update({name: value}))
    server.bucket.calls.clear()
    for read in (server.store.look_up, server.store.load):
        with pytest.raises(ReferenceDamagedError, match='"parcel" is damaged: its pointer cannot be read'):
            read(PARCEL)
    assert server.bucket.calls == {"get": 2}, "only the pointer is read"
    assert {path.name for path in (tmp_path / "cache-1").iterdir()} == kept


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"format_version":' * 10_000, b"1" * 100_000, b"\xff" * 1000])
def test_a_pointer_that_is_a_bomb_is_damaged(bucket: MemoryObjectStorage, started: Started, data: bytes) -> None:
    bucket.put(pointer_key(PARCEL), data)
    with pytest.raises(ReferenceDamagedError):
        started().store.look_up(PARCEL)


def shard_of_many(value: str, count: int) -> bytes:
    references = ",".join(f'"{number:x}":{value}' for number in range(count))
    return f'{{"format_version":1,"shard":"00","nonce":"{"0" * 32}","references":{{{references}}}}}'.encode()


@pytest.mark.parametrize(
    "data",
    [b"[" + b"[]," * 2**17 + b"0]", b'["' + b'a","' * 400_000 + b'"]', shard_of_many("{}", 50_000)],
    ids=["arrays", "texts", "objects"],
)
def test_a_shard_of_more_values_than_a_real_one_is_not_parsed(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("it is parsed"))
    monkeypatch.setattr(index_objects, "decode_shared", lambda *_: pytest.fail("it is parsed"))
    with pytest.raises(DamageError, match="its shard of the index has more than 350,000 values"):
        decode_shard("00", data)


def test_the_problems_of_a_shard_are_not_listed_if_they_are_many() -> None:
    with pytest.raises(DamageError, match=r"cannot be read \(9,000 problems\)"):
        decode_shard("00", shard_of_many("0", 9000))


@pytest.mark.parametrize("size_mib", [4, 64])
def test_a_hostile_shard_ends_nothing_and_is_made_again(
    bucket: MemoryObjectStorage, started: Started, size_mib: int
) -> None:
    server, other = started(), started()
    server.store.save(FIRST)
    other.poll()
    bucket.put(shard_key(shard_of(PARCEL)), b"[" + b"[]," * (size_mib * 2**20 // 3 - 1) + b"0]")
    started().store.save(make_reference("belt", seed=2))
    other.poll()
    assert other.known[PARCEL] == FIRST.revision
    started().store.maintain()
    assert indexed(bucket).keys() == {PARCEL, "belt"}


def test_a_shard_that_nobody_would_read_is_not_written(
    bucket: MemoryObjectStorage, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = started()
    server.store.save(FIRST)
    key = shard_key(shard_of(PARCEL))
    before = bucket.get(key, max_bytes=2**20)
    assert before is not None
    monkeypatch.setattr(index_objects, "MAX_SHARD_BYTES", len(before.data) - 1)
    server.store.delete(PARCEL)  # a tombstone is smaller
    with pytest.raises(StorageUnavailableError, match=r"no room for more references.*other servers may not know"):
        server.store.save(FIRST)
    after = bucket.get(key, max_bytes=2**20)
    assert after is not None
    assert len(after.data) < len(before.data)
    server.poll()
    assert server.store.load(PARCEL).revision == FIRST.revision


def test_a_lease_of_a_server_whose_clock_is_far_ahead_blocks_nobody(bucket: MemoryObjectStorage, clock: Clock) -> None:
    wrong = Clock(clock.now_s + 70 * 365 * 86_400)
    assert Leases(bucket, wrong.surroundings(1)).take("sweep", DAY)
    assert Leases(bucket, clock.surroundings(2)).take("sweep", DAY)
    assert not Leases(bucket, clock.surroundings(3)).take("sweep", DAY), "that one is a lease"


@pytest.mark.parametrize("data", [b"x" * 5000, b"[" * 4000, b""])
def test_a_damaged_lease_is_taken(bucket: MemoryObjectStorage, clock: Clock, data: bytes) -> None:
    bucket.put(LEASES + "sweep", data)
    leases = Leases(bucket, clock.surroundings(1))
    assert leases.take("sweep", DAY)
    leases.give_back("sweep", is_done=True)
    assert not leases.take("sweep", DAY)
