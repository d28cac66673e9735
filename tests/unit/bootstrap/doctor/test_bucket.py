"""What the doctor says about a store that servers share."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from fakes.faulty_objects import Faults, FaultyObjectStorage

from patchserve_server.bootstrap.doctor import bucket
from patchserve_server.bootstrap.doctor.finding import Finding, Status
from patchserve_server.bootstrap.doctor.store import check_store
from patchserve_server.config import Settings
from patchserve_server.store.objects import MemoryObjectStorage, ObjectExistsError, Version
from patchserve_server.store.objects.store_file import open_store_file

URL = "s3://bucket/line"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> FaultyObjectStorage:
    """What the doctor gets for the URL."""
    faulty = FaultyObjectStorage(MemoryObjectStorage(URL))
    monkeypatch.setattr(bucket, "open_object_storage", lambda _: faulty)
    return faulty


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def findings(cache: Path) -> dict[str, Finding]:
    return {each.subject: each for each in check_store(Settings(store=URL, store_cache=cache))}


def test_a_new_and_a_used_bucket_are_tried_and_left_as_they_were(storage: FaultyObjectStorage, cache: Path) -> None:
    found = findings(cache)
    assert {each.status for each in found.values()} == {Status.OK}
    assert list(found) == ["store", "conditions", "latency", "cache", "disk"]
    assert "the first start makes a store of it" in found["store"].message
    assert "ms" in found["latency"].message
    assert list(storage.list("")) == []
    store_id = open_store_file(storage).store_id
    before = list(storage.list(""))
    assert f"store {store_id[:8]}" in findings(cache)["store"].message
    assert list(storage.list("")) == before


def test_a_store_that_is_away(storage: FaultyObjectStorage, cache: Path) -> None:
    storage.faults = Faults(before=1)
    found = findings(cache)["store"]
    assert (found.status, found.message) == (Status.FAULT, f"{URL}: The store is away.")
    assert "credentials" in found.advice


def test_a_service_that_ignores_conditions(
    storage: FaultyObjectStorage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(key: str, data: bytes) -> Version:
        try:
            return storage.storage.create(key, data)
        except ObjectExistsError:
            return storage.storage.put(key, data)

    monkeypatch.setattr(storage, "create", create)
    found = findings(cache)["store"]
    assert found.status is Status.FAULT or findings(cache)["conditions"].status is Status.FAULT


def test_a_store_of_a_newer_server(storage: FaultyObjectStorage, cache: Path) -> None:
    storage.create("patchserve.json", b'{"format_version": 99, "store_id": "x", "proven_services": []}')
    found = findings(cache)["store"]
    assert found.status is Status.FAULT


def test_a_store_that_is_far_away(storage: FaultyObjectStorage, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(step=1.0)
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    found = findings(cache)["latency"]
    assert (found.status, found.message) == (Status.WARNING, "a small read takes 1000 ms")


def test_a_cache_that_cannot_be_written(storage: FaultyObjectStorage, cache: Path) -> None:
    cache.touch()
    assert findings(cache)["cache"].status is Status.FAULT
    assert storage.calls


def test_a_variable_of_the_provider_that_cannot_be_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    found = {each.subject: each for each in check_store(Settings(store="s3://bucket", store_cache=cache))}
    assert found["store"].status is Status.FAULT
    assert "AWS_ENDPOINT_URL must be a URL" in found["store"].message
