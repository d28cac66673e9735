"""A real object store is killed, started again and stopped in the middle of writes: what was answered is there, whole.

`STOPPED_S=30 KILLS=20 pytest tests/e2e/test_lost_object_server.py` is the long run.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.object_servers import ObjectServer, seaweedfs_server

from patchserve_server.domain.errors import StorageUnavailableError
from patchserve_server.store.objects import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectStorage,
    Version,
    open_object_storage,
)
from patchserve_server.store.objects.retrying import RetryPolicy

STOPPED_S = float(os.environ.get("STOPPED_S", "2"))
KILLS = int(os.environ.get("KILLS", "2"))
LARGE = 6 << 20


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    with seaweedfs_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


class Writer(threading.Thread):
    """Swaps one pointer and creates large objects, one after the other, until it is told to end."""

    def __init__(self, storage: ObjectStorage, folder: Path) -> None:
        super().__init__(daemon=True)
        self.storage, self.file = storage, folder / "bank"
        self.ending, self.error = threading.Event(), ""
        self.banks: list[str] = []  # answered: they were created
        self.swaps: list[bytes] = []  # answered: the contents of the pointer, in their order
        self.refused = 0

    def run(self) -> None:
        number, version = 0, self.storage.put("references/a", b"begin")
        while not self.ending.is_set():
            number += 1
            try:
                self._create_bank()
                version = self._swap(number, version)
            except StorageUnavailableError:
                self.refused += 1
            except Exception as error:
                self.error = repr(error)
                raise

    def _create_bank(self) -> None:
        content = os.urandom(LARGE)
        digest = hashlib.sha256(content).hexdigest()
        self.file.write_bytes(content)
        try:
            self.storage.create_from_file(f"banks/{digest}", self.file)
        except ObjectExistsError:  # the answer to the first try was lost
            found = self.storage.find(f"banks/{digest}")
            assert found is not None
            assert found.size_bytes == LARGE
        self.banks.append(digest)

    def _swap(self, number: int, version: Version) -> Version:
        data = f"{number} {random.random()}".encode()
        try:
            new = self.storage.replace("references/a", data, version)
        except ObjectChangedError:  # only this writer writes: an earlier swap was done that was not answered
            stored = self.storage.get("references/a", max_bytes=100)
            assert stored is not None
            return stored.version
        self.swaps.append(data)
        return new


def start_writing(server: ObjectServer, folder: Path) -> Writer:
    storage = open_object_storage(server.url("lost"), RetryPolicy(deadline_s=5))
    writer = Writer(storage, folder)
    writer.start()
    return writer


def wait_for_swaps(writer: Writer, more: int) -> None:
    wanted, deadline_s = len(writer.swaps) + more, time.monotonic() + 60
    while len(writer.swaps) < wanted:
        assert writer.is_alive(), writer.error
        assert time.monotonic() < deadline_s, "nothing is written any more"
        time.sleep(0.02)


def check(server: ObjectServer, writer: Writer, folder: Path) -> None:
    """Everything that was answered is there, and everything that is there is whole."""
    writer.ending.set()
    writer.join(60)
    assert not writer.is_alive()
    assert not writer.error
    storage = open_object_storage(server.url("lost"))
    stored = storage.get("references/a", max_bytes=100)
    assert stored is not None
    assert int(stored.data.split()[0]) >= int(writer.swaps[-1].split()[0])
    found = {listed.key.removeprefix("banks/") for listed in storage.list("banks/")}
    assert set(writer.banks) <= found
    for digest in found:
        storage.get_to_file(f"banks/{digest}", folder / "read", max_bytes=LARGE)
        assert hashlib.sha256((folder / "read").read_bytes()).hexdigest() == digest


def test_a_server_that_is_killed_in_the_middle_of_writes_loses_nothing_that_was_answered(
    server: ObjectServer, tmp_path: Path
) -> None:
    chance = random.Random(1)
    writer = start_writing(server, tmp_path)
    for _ in range(KILLS):
        wait_for_swaps(writer, 2)
        time.sleep(chance.uniform(0, 0.2))  # in the middle of a write
        server.kill()
        server.start()
    wait_for_swaps(writer, 2)
    check(server, writer, tmp_path)


def test_a_server_that_is_stopped_for_a_while_is_waited_for_and_given_up(server: ObjectServer, tmp_path: Path) -> None:
    writer = start_writing(server, tmp_path)
    wait_for_swaps(writer, 1)
    server.signal(signal.SIGSTOP)
    time.sleep(STOPPED_S)
    impatient = open_object_storage(server.url("lost"), RetryPolicy(deadline_s=0.1))
    with pytest.raises(StorageUnavailableError, match="does not answer"):
        impatient.get("references/a", max_bytes=100)
    server.signal(signal.SIGCONT)
    wait_for_swaps(writer, 2)
    check(server, writer, tmp_path)
