"""Objects over HTTP while requests are throttled, reset, cut off, unanswered, or answered in vain."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.faulty_http import Break, FaultyHttp, faulty_http
from fakes.object_servers import SECRET, ObjectServer

from patchserve_server.domain.errors import StorageUnavailableError
from patchserve_server.store.objects import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
    open_object_storage,
)
from patchserve_server.store.objects.retrying import RetryPolicy

POLICY = RetryPolicy(deadline_s=30, first_wait_s=0.001, longest_wait_s=0.01)
BREAKS: tuple[Break, ...] = ("slow_down", "internal_error", "reset", "lost_answer", "half_answer")


@pytest.fixture
def relay(moto: ObjectServer) -> Iterator[FaultyHttp]:
    with faulty_http(moto.port) as relay:
        yield relay


@pytest.fixture
def storage(
    moto: ObjectServer, relay: FaultyHttp, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[ObjectStorage]:
    for name, value in {**moto.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"}.items():
        monkeypatch.setenv(name, value)
    storage = open_object_storage(
        moto.url(f"{os.getpid()}/{request.node.name}".replace("[", "-").replace("]", "")), POLICY
    )
    yield storage
    storage.close()


@pytest.mark.parametrize("how", BREAKS)
def test_every_request_is_tried_again(storage: ObjectStorage, relay: FaultyHttp, tmp_path: Path, how: Break) -> None:
    (tmp_path / "file").write_bytes(b"bank")

    def broken() -> None:
        relay.breaks.extend([how, how])

    broken()
    version = storage.create("a", b"first")
    broken()
    version = storage.replace("a", b"second", version)
    broken()
    stored = storage.get("a", max_bytes=10)
    assert stored is not None
    assert stored.data == b"second"
    broken()
    found = storage.find("a")
    assert found is not None
    assert found.version == stored.version == version
    broken()
    storage.copy("a", "b")
    broken()
    storage.put_from_file("c", tmp_path / "file")
    broken()
    storage.get_to_file("c", tmp_path / "copy", max_bytes=10)
    assert (tmp_path / "copy").read_bytes() == b"bank"
    broken()
    assert [found.key for found in storage.list("")] == ["a", "b", "c"]
    broken()
    storage.delete("a")
    assert [found.key for found in storage.list("")] == ["b", "c"]
    assert not relay.breaks


def test_a_create_whose_answer_was_lost_is_known_by_its_content(storage: ObjectStorage, relay: FaultyHttp) -> None:
    relay.breaks.append("lost_answer")
    version = storage.create("a", b"nonce 1")
    assert storage.get("a", max_bytes=10, unless=version) is None
    relay.breaks.append("reset")
    with pytest.raises(ObjectExistsError):
        storage.create("a", b"nonce 2")


def test_a_swap_whose_answer_was_lost_is_known_by_its_nonce(storage: ObjectStorage, relay: FaultyHttp) -> None:
    old = storage.create("a", b"nonce 1")
    relay.breaks.append("lost_answer")
    new = storage.replace("a", b"nonce 2", old)
    assert storage.get("a", max_bytes=10, unless=new) is None


def test_a_swap_that_another_one_preceded_is_refused_after_a_retry_too(
    storage: ObjectStorage, relay: FaultyHttp
) -> None:
    old = storage.create("a", b"nonce 1")
    storage.replace("a", b"nonce 2", old)
    relay.breaks.append("reset")
    with pytest.raises(ObjectChangedError) as caught:
        storage.replace("a", b"nonce 3", old)
    assert caught.value.may_have_been_written
    relay.breaks.append("reset")
    storage.delete("a")
    relay.breaks.append("reset")
    with pytest.raises(ObjectChangedError):
        storage.replace("a", b"nonce 3", old)


def test_a_file_whose_create_was_answered_in_vain_exists(
    storage: ObjectStorage, relay: FaultyHttp, tmp_path: Path
) -> None:
    (tmp_path / "bank").write_bytes(b"bank")
    relay.breaks.append("lost_answer")
    with pytest.raises(ObjectExistsError):
        storage.create_from_file("bank", tmp_path / "bank")


def test_a_download_that_broke_off_goes_on_where_it_was(
    storage: ObjectStorage, relay: FaultyHttp, tmp_path: Path
) -> None:
    content = os.urandom(24 << 20)
    storage.put("bank", content)
    relay.breaks.append("half_answer")
    storage.get_to_file("bank", tmp_path / "bank", max_bytes=len(content))
    assert (tmp_path / "bank").read_bytes() == content
    assert len(relay.ranges) == 1
    assert int(relay.ranges[0].removeprefix("bytes=").rstrip("-")) >= 4 << 20


def test_a_list_that_broke_off_has_every_object_once(storage: ObjectStorage, relay: FaultyHttp) -> None:
    keys = [f"a/{number:04}" for number in range(30)]
    for key in keys:
        storage.create(key, b"1")
    relay.breaks.extend(["half_answer", "", "slow_down"])
    assert [found.key for found in storage.list("a/")] == keys


def test_what_is_missing_is_asked_for_once(storage: ObjectStorage, relay: FaultyHttp) -> None:
    with pytest.raises(ObjectMissingError):
        storage.get("a", max_bytes=1)
    assert len(relay.requests) == 1


def test_a_service_that_is_away_is_given_up_at_the_deadline(
    moto: ObjectServer, storage: ObjectStorage, relay: FaultyHttp
) -> None:
    del storage  # its variables are what this test needs
    relay.breaks.extend(["slow_down"] * 1000)
    impatient = open_object_storage(moto.url("away"), RetryPolicy(0.2, 0.001, 0.01))
    with pytest.raises(StorageUnavailableError, match="503 SlowDown") as caught:
        impatient.create("a", b"1")
    assert caught.value.retry_after_s
    assert 2 < len(relay.requests) < 1000


def test_a_request_without_an_answer_is_tried_again(
    storage: ObjectStorage, relay: FaultyHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchserve_server.store.objects.transfer._REQUEST_S", 0.2)
    quick = open_object_storage(storage.name, POLICY)
    relay.breaks.append("hang")
    version = quick.create("a", b"1")
    relay.breaks.append("hang")
    stored = quick.get("a", max_bytes=1)
    assert stored is not None
    assert stored.version == version


def test_a_bucket_that_does_not_exist_is_told_at_once(moto: ObjectServer, storage: ObjectStorage) -> None:
    del storage
    nowhere = open_object_storage("s3://no-such-bucket/prefix")
    with pytest.raises(StorageUnavailableError, match="the bucket does not exist"):
        nowhere.get("a", max_bytes=1)
    with pytest.raises(StorageUnavailableError, match="the bucket does not exist"):
        nowhere.create("a", b"1")


def test_no_error_contains_a_key(storage: ObjectStorage, relay: FaultyHttp) -> None:
    relay.breaks.append("half_answer")
    error: BaseException | None = None
    try:
        open_object_storage("s3://no-such-bucket/prefix").list("a").__next__()
    except StorageUnavailableError as caught:
        error = caught
    while error is not None:
        assert SECRET not in repr(error)
        assert "http" not in repr(error)
        error = None if error.__suppress_context__ else error.__context__


def put_by_hand(moto: ObjectServer, storage: ObjectStorage, key: str) -> None:
    path = f"{storage.name.removeprefix('s3:/')}/{key}"
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{moto.port}{path}", b"", method="PUT")).close()


def test_a_marker_of_a_folder_is_no_object_in_it(moto: ObjectServer, storage: ObjectStorage) -> None:
    storage.create("references/a", b"")
    put_by_hand(moto, storage, "references/")
    assert [found.key for found in storage.list("references/")] == ["references/a"]


@pytest.mark.parametrize("key", ["references//a", "references/.."], ids=["empty", "dots"])
def test_a_key_that_lets_every_list_fail_is_told(moto: ObjectServer, storage: ObjectStorage, key: str) -> None:
    put_by_hand(moto, storage, key)
    with pytest.raises(StorageUnavailableError, match=r"an object whose key has .* between two slashes; remove"):
        list(storage.list("references/"))


def test_a_file_that_cannot_be_uploaded_in_time_leaves_no_other_error(
    storage: ObjectStorage, relay: FaultyHttp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bank").write_bytes(bytes(2 << 20))
    monkeypatch.setattr("patchserve_server.store.objects.transfer._REQUEST_S", 0.1)
    impatient = open_object_storage(storage.name, RetryPolicy(0.1, 0.001, 0.01))
    relay.breaks.extend(["hang"] * 50)
    with pytest.raises(StorageUnavailableError, match="does not answer"):
        impatient.create_from_file("bank", tmp_path / "bank")
