"""Exported references on the client's side: a file that is not whole never gets its name."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from fakes.either_client import CallMethod
from fakes.fake_server import FakeServer
from fakes.faults import Fault
from fakes.responses import reference

from patchserve_client import Internal, PatchserveError


@pytest.fixture
def file(fake: FakeServer, tmp_path: Path) -> Path:
    fake.references["belt"] = reference("belt", 1)
    (tmp_path / "files").mkdir()
    path = tmp_path / "files/belt"
    path.write_bytes(b"an older one")
    return path


def test_a_whole_file_replaces_an_older_one(fake: FakeServer, call: CallMethod, file: Path) -> None:
    assert call(fake.address, "export_reference", "belt", file).reference_id == "belt"
    assert file.read_bytes() == b"123"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_is_not_whole_leaves_the_older_one(fake: FakeServer, call: CallMethod, file: Path) -> None:
    fake.file_bytes = 4
    with pytest.raises(Internal, match="sent 3 bytes of a file that has 4"):
        call(fake.address, "export_reference", "belt", file)
    assert file.read_bytes() == b"an older one"
    assert list(file.parent.iterdir()) == [file]


def test_an_error_of_the_server_leaves_the_older_file(fake: FakeServer, call: CallMethod, file: Path) -> None:
    fake.fail("ExportReference", Fault(grpc.StatusCode.UNAVAILABLE, "down"))
    with pytest.raises(PatchserveError):
        call(fake.address, "export_reference", "belt", file)
    assert file.read_bytes() == b"an older one"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_is_sent_with_its_size_in_chunks(fake: FakeServer, call: CallMethod, file: Path) -> None:
    file.write_bytes(bytes(2**20 + 1))
    assert call(fake.address, "import_reference", file, "new", expected_revision="r").reference_id == "imported"
    ((start, *chunks),) = fake.requests["ImportReference"]
    assert (start.start.size_bytes, start.start.reference_id) == (2**20 + 1, "new")
    assert start.start.expected_revision == "r"
    assert [len(chunk.chunk) for chunk in chunks] == [2**20, 1]
