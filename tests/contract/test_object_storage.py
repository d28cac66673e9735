"""What every ObjectStorage promises, over memory and real servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from fakes.object_servers import ObjectServer, azurite_server, google_server

from patchserve_server.store.objects import (
    MemoryObjectStorage,
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
    ObjectTooLargeError,
    Version,
    open_object_storage,
    probe,
)

_PREFIXES = count()
LARGE = 9 << 20  # several chunks of a download


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with azurite_server(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with google_server(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture(params=["memory", "moto", "seaweedfs", "azurite", "google"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    if request.param == "memory":
        yield MemoryObjectStorage()
        return
    server: ObjectServer = request.getfixturevalue(request.param)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    storage = open_object_storage(server.url(f"contract/{next(_PREFIXES)}"))
    yield storage
    storage.close()


def test_an_object_is_found_as_it_was_created(storage: ObjectStorage) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    version = storage.create("a/b", b"content")
    stored, found = storage.get("a/b", max_bytes=7), storage.find("a/b")
    assert stored is not None
    assert stored.data == b"content"
    assert stored.version == version
    assert found is not None
    assert (found.key, found.size_bytes) == ("a/b", 7)
    assert found.version.is_same(version)
    assert before <= found.modified_time <= datetime.now(UTC) + timedelta(seconds=5)


def test_an_object_may_be_empty(storage: ObjectStorage, tmp_path: Path) -> None:
    if storage.service == "gs":
        pytest.skip("the emulator of Google Cloud Storage cannot store empty objects")
    (tmp_path / "empty").touch()
    storage.create_from_file("empty", tmp_path / "empty")
    storage.get_to_file("empty", tmp_path / "copy", max_bytes=0)
    assert (tmp_path / "copy").read_bytes() == b""


def test_what_is_missing_is_told(storage: ObjectStorage, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissingError):
        storage.get("a", max_bytes=1)
    with pytest.raises(ObjectMissingError):
        storage.get_to_file("a", tmp_path / "a", max_bytes=1)
    with pytest.raises(ObjectMissingError):
        storage.copy("a", "b")
    assert storage.find("a") is None
    assert list(storage.list("")) == []
    storage.delete("a")


def test_an_object_is_created_once(storage: ObjectStorage) -> None:
    storage.create("a", b"first")
    for data in (b"second", b"first"):
        with pytest.raises(ObjectExistsError):
            storage.create("a", data)
    assert _data(storage, "a") == b"first"


def test_an_object_is_replaced_at_its_version_only(storage: ObjectStorage) -> None:
    first = storage.create("a", b"first")
    second = storage.replace("a", b"second", first)
    assert not second.is_same(first)
    with pytest.raises(ObjectChangedError) as caught:
        storage.replace("a", b"third", first)
    assert not caught.value.may_have_been_written
    assert _data(storage, "a") == b"second"
    storage.replace("a", b"third", second)
    assert _data(storage, "a") == b"third"


def test_a_deleted_object_is_not_replaced(storage: ObjectStorage) -> None:
    version = storage.create("a", b"first")
    storage.delete("a")
    with pytest.raises(ObjectChangedError):
        storage.replace("a", b"second", version)
    assert storage.find("a") is None
    storage.create("a", b"third")


def test_an_object_that_is_still_the_same_is_not_sent(storage: ObjectStorage) -> None:
    first = storage.create("a", b"first")
    assert storage.get("a", max_bytes=10, unless=first) is None
    storage.replace("a", b"second", first)
    changed = storage.get("a", max_bytes=10, unless=first)
    assert changed is not None
    assert changed.data == b"second"
    assert storage.get("a", max_bytes=10, unless=changed.version) is None


def test_put_takes_whatever_is_there(storage: ObjectStorage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"third")
    storage.put("a", b"first")
    version = storage.put("a", b"second")
    assert storage.get("a", max_bytes=10, unless=version) is None
    storage.put_from_file("a", tmp_path / "file")
    assert _data(storage, "a") == b"third"


def test_a_limit_holds_before_bytes_are_read(storage: ObjectStorage, tmp_path: Path) -> None:
    storage.create("a", b"12345")
    with pytest.raises(ObjectTooLargeError):
        storage.get("a", max_bytes=4)
    with pytest.raises(ObjectTooLargeError):
        storage.get_to_file("a", tmp_path / "a", max_bytes=4)
    assert not (tmp_path / "a").exists() or not (tmp_path / "a").read_bytes()


def test_large_objects_go_through_files(storage: ObjectStorage, tmp_path: Path) -> None:
    (tmp_path / "bank").write_bytes(os.urandom(LARGE))
    storage.create_from_file("banks/1", tmp_path / "bank")
    with pytest.raises(ObjectExistsError):
        storage.create_from_file("banks/1", tmp_path / "bank")
    (tmp_path / "old").write_bytes(os.urandom(LARGE + 1))
    storage.get_to_file("banks/1", tmp_path / "old", max_bytes=LARGE)
    assert (tmp_path / "old").read_bytes() == (tmp_path / "bank").read_bytes()


def test_a_copy_has_the_same_bytes(storage: ObjectStorage) -> None:
    storage.create("banks/1", b"bank")
    storage.create("trash/1", b"older")
    storage.copy("banks/1", "trash/1")
    storage.delete("banks/1")
    assert _data(storage, "trash/1") == b"bank"
    assert storage.find("banks/1") is None


def test_a_list_has_what_begins_with_the_prefix(storage: ObjectStorage) -> None:
    versions = {key: storage.create(key, key.encode()) for key in ("a/1", "a/2", "a/b/3", "ab/4", "b")}
    listed = {found.key: found for found in storage.list("a/")}
    assert sorted(listed) == ["a/1", "a/2", "a/b/3"]
    for key, found in listed.items():
        assert found.size_bytes == len(key)
        assert found.version.is_same(versions[key])
        assert found.modified_time.tzinfo is UTC
    assert {found.key for found in storage.list("")} == versions.keys()


def test_one_of_those_who_create_at_the_same_time_wins(storage: ObjectStorage) -> None:
    outcomes = _race(lambda number: storage.create("a", f"{number}".encode()), ObjectExistsError)
    assert outcomes.count(True) == 1
    assert _data(storage, "a") == f"{outcomes.index(True)}".encode()


def test_one_of_those_who_replace_at_the_same_time_wins(storage: ObjectStorage) -> None:
    version = storage.put("a", b"before")
    outcomes = _race(lambda number: storage.replace("a", f"{number}".encode(), version), ObjectChangedError)
    assert outcomes.count(True) == 1
    assert _data(storage, "a") == f"{outcomes.index(True)}".encode()


def test_no_swap_of_many_is_lost(storage: ObjectStorage) -> None:
    storage.create("counter", b"0 nobody")

    def add(caller: int) -> None:
        for turn in range(4):
            while True:
                stored = storage.get("counter", max_bytes=100)
                assert stored is not None
                total = int(stored.data.split()[0]) + 1
                with suppress(ObjectChangedError):
                    storage.replace("counter", f"{total} {caller} {turn}".encode(), stored.version)
                    break

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert _data(storage, "counter").startswith(b"16 ")


def test_the_probe_accepts_it_and_leaves_nothing(storage: ObjectStorage) -> None:
    probe(storage)
    assert list(storage.list("")) == []


@pytest.mark.parametrize(("e_tag", "version"), [(None, None), ("", ""), ("", None)])
def test_a_version_needs_something_to_compare(e_tag: str | None, version: str | None) -> None:
    with pytest.raises(ValueError, match="ETag"):
        Version(e_tag, version)


def test_empty_parts_of_a_version_are_none() -> None:
    assert Version("", "7") == Version(None, "7")


def _data(storage: ObjectStorage, key: str) -> bytes:
    stored = storage.get(key, max_bytes=100)
    assert stored is not None
    return stored.data


def _race(write: Callable[[int], Version], refused: type[Exception]) -> list[bool]:
    """Who of eight has written."""

    def attempt(number: int) -> bool:
        try:
            write(number)
        except refused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(attempt, range(8)))
