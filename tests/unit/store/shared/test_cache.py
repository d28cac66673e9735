"""The copies on disk: within their limit, for several processes, after kills and on a full disk."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest
from fakes.bucket_servers import Clock, memory_bucket
from fakes.references import content, make_reference

from patchserve_server.domain.errors import StorageFullError
from patchserve_server.domain.reference import Bank
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store import bank_file
from patchserve_server.store.shared import DigestCache, SharedReferenceStore
from patchserve_server.store.shared import contents as contents_module

SIZE = 1000


def keep(cache: DigestCache, number: int) -> str:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    with cache.part(SIZE) as part:
        part.write_bytes(bytes(SIZE))
        cache.keep(part, digest)
    return digest


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_it_stays_within_its_limit_with_two_processes(tmp_path: Path) -> None:
    caches = [DigestCache(tmp_path, 32 * SIZE) for _ in range(2)]
    for number in range(200):
        keep(caches[number % 2], number)
        assert size_of(tmp_path) <= (32 + 2 * (32 // 16 + 1)) * SIZE


def test_the_least_recently_used_file_leaves(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path, 10 * SIZE)
    digests = [keep(cache, number) for number in range(10)]
    for age_s, digest in enumerate(reversed(digests)):
        os.utime(tmp_path / digest, (time.time() - 100 - age_s,) * 2)
    assert cache.find(digests[0]) is not None
    keep(cache, 10)
    assert [cache.find(digest) is None for digest in digests] == [False, True, *[False] * 8]


def test_what_killed_processes_left_leaves_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(bytes(100 * SIZE))
    abandoned, written = tmp_path / ".part-1", tmp_path / ".part-2"
    for path in (abandoned, written):
        path.write_bytes(bytes(SIZE))
    os.utime(abandoned, (time.time() - 3600,) * 2)
    digest = keep(DigestCache(tmp_path, 10 * SIZE), 1)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", ".part-2", digest}


def test_a_file_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path, SIZE - 1)
    assert cache.find(keep(cache, 1)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_leaves_while_another_process_reads_it(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path, 10 * SIZE)
    path = cache.find(keep(cache, 1))
    assert path is not None
    with path.open("rb") as file:
        DigestCache(tmp_path, 0)
        assert len(file.read()) == SIZE
    assert not path.exists()


def test_copies_make_room_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SharedReferenceStore(memory_bucket(Clock()), DigestCache(tmp_path, 2**20))
    store.save(make_reference(seed=1))
    write = bank_file.write_bank_unsynced

    def write_on_full_disk(path: Path, bank: Bank) -> None:
        if size_of(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, bank)

    monkeypatch.setattr(contents_module, "write_bank_unsynced", write_on_full_disk)
    store.save(make_reference(seed=2))
    assert content(store.load(ReferenceId("parcel"))) == content(make_reference(seed=2))
    store.close()


def test_a_disk_that_is_full_of_other_things_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SharedReferenceStore(memory_bucket(Clock()), DigestCache(tmp_path, 2**20))

    def write_on_full_disk(_path: Path, _bank: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(contents_module, "write_bank_unsynced", write_on_full_disk)
    with pytest.raises(StorageFullError, match='Not enough disk space to save reference "parcel"'):
        store.save(make_reference())
    assert store.list_ids() == []
    store.close()


def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "cache", 32 * SIZE)
    keep(cache, 1)
    shutil.rmtree(tmp_path / "cache")
    assert cache.find(keep(cache, 2)) is not None


def test_nothing_leaves_for_a_file_that_is_not_kept(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path, 10 * SIZE)
    digest = keep(cache, 1)
    with cache.part(11 * SIZE) as part:
        part.write_bytes(bytes(11 * SIZE))
        cache.keep(part, "0" * 64)
    assert [path.name for path in tmp_path.iterdir()] == [digest]
