"""`patchserve.json`, and the probe that finds services which ignore conditions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.faulty_objects import Faults, FaultyObjectStorage
from fakes.object_servers import rclone_server

from patchserve_server.domain.errors import StartupError, StorageUnavailableError
from patchserve_server.store.objects import MemoryObjectStorage, Version, open_object_storage
from patchserve_server.store.objects.store_file import KEY, open_store_file, read_store_file


class ForgetfulSwaps(MemoryObjectStorage):
    """Keeps the condition of a create only."""

    def replace(self, key: str, data: bytes, version: Version) -> Version:
        return self.put(key, data)


class Elsewhere(FaultyObjectStorage):
    """The same objects, by another service."""

    service = "elsewhere"


@pytest.fixture
def rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with rclone_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.url("refused")


def test_a_server_that_ignores_conditions_is_refused_and_left_clean(rclone: str) -> None:
    storage = open_object_storage(rclone)
    with pytest.raises(StartupError, match="ignores If-None-Match"):
        open_store_file(storage)
    assert list(storage.list("")) == []


def test_a_server_that_ignores_versions_is_refused_and_left_clean() -> None:
    storage = ForgetfulSwaps()
    with pytest.raises(StartupError, match="ignores If-Match"):
        open_store_file(storage)
    assert list(storage.list("")) == []


def test_a_store_is_made_once_and_costs_one_request_afterwards() -> None:
    objects = MemoryObjectStorage()
    assert read_store_file(objects) is None
    made = open_store_file(objects)
    counted = FaultyObjectStorage(objects)
    assert open_store_file(counted) == read_store_file(objects) == made
    assert counted.calls == {"get": 1}
    assert [found.key for found in objects.list("")] == [KEY]


def test_each_service_is_probed_once() -> None:
    objects = MemoryObjectStorage()
    made = open_store_file(objects)
    through = Elsewhere(objects)
    opened = open_store_file(through)
    assert opened.store_id == made.store_id
    assert opened.proven_services == ("memory", "elsewhere")
    assert through.calls["create"] == 2
    assert open_store_file(through) == opened
    assert through.calls["create"] == 2


def test_two_who_make_a_store_at_the_same_time_agree() -> None:
    objects = MemoryObjectStorage()
    first = FaultyObjectStorage(objects)

    def make_it_before(method: str, key: str) -> None:
        if (method, key) == ("create", KEY):
            first.before_call = lambda _method, _key: None
            open_store_file(objects)

    first.before_call = make_it_before
    assert open_store_file(first).store_id == open_store_file(objects).store_id


def test_a_service_that_is_away_is_no_refusal() -> None:
    with pytest.raises(StorageUnavailableError):
        open_store_file(FaultyObjectStorage(MemoryObjectStorage(), Faults(before=1)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b"[" * 10_000, "damaged"),
        (b'{"format_version": 1}', "damaged"),
        (b'{"format_version": "1", "store_id": "a", "proven_services": []}', "damaged"),
        (b'{"format_version": 1, "store_id": "a", "proven_services": [1]}', "damaged"),
        (b'{"format_version": 2, "store_id": "a", "proven_services": []}', "Update this server"),
        (b" " * 20_000, "damaged"),
    ],
)
def test_a_file_that_is_none_is_refused_and_kept(data: bytes, message: str) -> None:
    objects: Any = MemoryObjectStorage()
    objects.put(KEY, data)
    with pytest.raises(StartupError, match=message):
        open_store_file(objects)
    stored = objects.get(KEY, max_bytes=30_000)
    assert stored.data == data
