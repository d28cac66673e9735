"""References move between servers as files: through both clients, the command line, and tokens of the right scope."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from e2e.harness import connect, refusal
from e2e.in_process import in_process_server
from fakes.detector import FakeDetector
from fakes.either_client import CallMethod, call_asyncio, call_sync
from fakes.gray import gray_png
from typer.testing import CliRunner

from patchserve.v1 import reference_pb2
from patchserve_client import AsyncClient, Client, InvalidArgument, NotFound, ReferenceOperation
from patchserve_client.cli import app
from patchserve_server.serving.reference_transfer import ReferenceTransfer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with in_process_server() as address:
        yield address


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with in_process_server(store=tmp_path_factory.mktemp("store")) as address:
        yield address


@pytest.fixture
def belt(address: str) -> Iterator[str]:
    """A reference of two images that was tuned; deleted at the end, as everything else."""
    with Client(address) as client:
        client.load_reference([gray_png(100), gray_png(110)], "belt")
        client.tune_reference("belt", 2.0)
        yield "belt"
        for reference in list(client.list_references()):
            client.delete_reference(reference.reference_id)


@pytest.fixture(params=[call_sync, call_asyncio], ids=["sync", "asyncio"])
def call(request: pytest.FixtureRequest) -> CallMethod:
    chosen: CallMethod = request.param
    return chosen


@pytest.fixture
def run(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("PATCHSERVE_SERVER", address)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_a_reference_moves_to_another_server(
    address: str, other: str, belt: str, call: CallMethod, tmp_path: Path
) -> None:
    file = tmp_path / "belt.patchserve"
    file.write_text("an older one")
    exported = call(address, "export_reference", belt, file)
    assert [file.name] == [path.name for path in tmp_path.iterdir()]
    imported = call(other, "import_reference", file, "moved")
    assert (imported.reference_id, imported.revision) == ("moved", exported.revision)
    assert imported.sensitivity == 2.0
    before = call(address, "get_reference", belt)
    after = call(other, "get_reference", "moved")
    assert after.images == before.images
    assert after.calibration == before.calibration
    assert call(other, "import_reference", file).reference_id == belt
    with pytest.raises(NotFound):
        call(address, "export_reference", "nobody", tmp_path / "nobody")
    assert not (tmp_path / "nobody").exists()


def test_a_file_that_is_none_changes_nothing(other: str, call: CallMethod, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    with pytest.raises(InvalidArgument) as caught:
        call(other, "import_reference", tmp_path / "file", "made up")
    assert caught.value.reason == "INVALID_FIELD"  # the id
    with pytest.raises(InvalidArgument) as caught:
        call(other, "import_reference", tmp_path / "file", "made-up")
    assert caught.value.reason == "INVALID_REFERENCE_FILE"
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InvalidArgument):
        call(other, "import_reference", tmp_path / "empty", "made-up")
    with pytest.raises(OSError, match="No such file"):
        call(other, "import_reference", tmp_path / "nothing")
    with pytest.raises(NotFound):
        call(other, "get_reference", "made-up")


def test_a_reference_is_copied_on_one_server_and_to_another(address: str, other: str, belt: str) -> None:
    with Client(address) as client, Client(other) as target:
        copied = client.copy_reference(belt, "belt-2")
        assert copied.revision == client.get_reference(belt).revision
        assert client.copy_reference(belt, "far", to=target) == target.get_reference("far")
        with pytest.raises(NotFound):
            client.copy_reference("nobody", "far", to=target)


async def test_asyncio_copies_too(address: str, other: str, belt: str) -> None:
    async with AsyncClient(address) as client, AsyncClient(other) as target:
        assert (await client.copy_reference(belt, "belt-2")).reference_id == "belt-2"
        assert await client.copy_reference(belt, "far", to=target) == await target.get_reference("far")
        with pytest.raises(NotFound):
            await client.copy_reference("nobody", "far", to=target)


def test_an_export_that_is_read_slowly_ends_at_the_time_limit_of_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would hold a place, a copy of the bank on a disk and the revision as long as its caller likes."""

    async def chunks(_self: ReferenceTransfer, _file: object) -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    monkeypatch.setattr(ReferenceTransfer, "_chunks", chunks)
    with in_process_server(max_load_timeout_s=0.5) as address, connect(address) as stub:
        stub.LoadReference(reference_pb2.LoadReferenceRequest(images=[gray_png(100)]))
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ExportReference(reference_pb2.ExportReferenceRequest(), timeout=60))
        assert refusal(caught.value)[:2] == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE")


def test_the_history_says_what_made_each_revision(address: str, belt: str, call: CallMethod) -> None:
    tuned, loaded = call(address, "reference_history", belt)
    assert (tuned.is_current, tuned.operation) == (True, ReferenceOperation.TUNE)
    assert (loaded.is_current, loaded.operation) == (False, ReferenceOperation.LOAD)
    assert tuned.reference.previous_revision == loaded.reference.revision
    assert loaded.reference.threshold == 2 * tuned.reference.threshold
    assert loaded.reference.update_time < tuned.reference.update_time


def test_the_commands(run: Run, other: str, belt: str, tmp_path: Path) -> None:
    code, stdout, _ = run("reference", "export", belt)
    assert code == 0
    assert stdout.startswith("Exported belt: 2 images, raw threshold 10, revision ")
    assert stdout.endswith("to belt.patchserve, 0.0 MiB\n")
    assert (tmp_path / "belt.patchserve").is_file()
    code, stdout, _ = run("reference", "import", "belt.patchserve", "--id", "again", "--output=json")
    assert (code, json.loads(stdout)["reference_id"]) == (0, "again")
    assert run("reference", "import", "belt.patchserve", "--server", other)[1].startswith("Imported belt: 2 images")
    assert run("reference", "copy", belt, "belt-2")[1].startswith("Copied belt-2: 2 images, ")
    assert run("reference", "copy", belt, "--to", other)[1].startswith("Copied belt: 2 images, ")
    for same in ((belt,), (belt, belt)):
        code, _, stderr = run("reference", "copy", *same)
        assert (code, "Give the copy another name" in stderr) == (2, True)
    (tmp_path / "notes.txt").write_text("hello, this is a text")
    code, _, stderr = run("reference", "import", "notes.txt")
    assert code == 1
    assert stderr.startswith("Error: This is not an undamaged file of `patchserve reference export`: it does not begin")
    table = run("reference", "history", belt)[1].splitlines()
    assert table[0].split("  ")[0] == "revision"
    assert [line.split()[1] for line in table[1:]] == ["yes", "no"]
    assert [" tune " in table[1], " load " in table[2]] == [True, True]
    document = json.loads(run("reference", "history", belt, "--output=json")[1])
    assert [revision["operation"] for revision in document] == ["tune", "load"]
    assert run("reference", "restore", belt)[0] == 0
    assert " load " in run("reference", "history", belt)[1].splitlines()[1]


def test_messages_in_another_order_are_refused(address: str) -> None:
    chunk = reference_pb2.ImportReferenceRequest(chunk=b"x")
    start = reference_pb2.ImportReferenceRequest(start=reference_pb2.ImportStart(size_bytes=100))
    with connect(address) as stub:
        for messages in ([], [chunk], [start, start]):
            with pytest.raises(grpc.RpcError) as caught:
                stub.ImportReference(iter(messages))
            assert refusal(caught.value)[1] == "STREAM_PROTOCOL"
        with pytest.raises(grpc.RpcError) as caught:
            stub.ImportReference(iter([reference_pb2.ImportReferenceRequest(start=reference_pb2.ImportStart())]))
        assert refusal(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


def test_a_caller_who_stops_reading_an_export_leaves_nothing_behind(tmp_path: Path) -> None:
    with in_process_server(store=tmp_path, detector=FakeDetector()) as address, connect(address) as stub:
        with Client(address) as client:
            client.load_reference([gray_png(level) for level in range(30)], input_px=512, profile="notebook")
        call = stub.ExportReference(reference_pb2.ExportReferenceRequest())
        assert next(call).start.size_bytes > 20_000_000
        assert any(path.name.startswith(".patchserve-save") for path in tmp_path.iterdir())
        call.cancel()
        with Client(address) as client:
            client.export_reference("default", tmp_path / "whole")  # the next one has all the capacity it needs
    assert not any(path.name.startswith(".patchserve-save") for path in tmp_path.iterdir())
