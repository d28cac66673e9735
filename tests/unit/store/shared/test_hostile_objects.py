"""A bucket in which somebody has put what no server writes, and servers whose clocks are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.bucket_servers import Clock, Server
from fakes.references import make_reference

from patchserve_server.domain.errors import ReferenceDamagedError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.objects import MemoryObjectStorage
from patchserve_server.store.shared.keys import LEASES, pointer_key
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
