"""The store's folder is deleted, replaced or damaged behind the server's back."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest
from e2e.harness import Stub, connect, refusal
from e2e.in_process import in_process_server
from fakes.gray import gray_png

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.domain.errors import StartupError
from patchserve_server.store import restore


def load(stub: Stub, level: int = 100, reference_id: str = "parcel") -> reference_pb2.Reference:
    request = reference_pb2.LoadReferenceRequest(reference_id=reference_id, images=[gray_png(level)])
    return stub.LoadReference(request).reference


def infer(stub: Stub) -> str:
    """The revision of a response."""
    request = inference_pb2.InferRequest(reference_id="parcel", image=gray_png(100))
    return stub.Infer(request).reference_revision


def delete(stub: Stub) -> str:
    return stub.DeleteReference(reference_pb2.DeleteReferenceRequest(reference_id="parcel")).revision


def tune(stub: Stub) -> str:
    request = reference_pb2.TuneReferenceRequest(reference_id="parcel", sensitivity=2)
    return stub.TuneReference(request).reference.revision


@pytest.mark.parametrize("made_again", [False, True])
def test_a_store_that_is_deleted_while_the_server_runs_is_not_written_and_references_still_answer(
    tmp_path: Path, made_again: bool
) -> None:
    folder = tmp_path / "store"
    with in_process_server(store=folder) as address, connect(address) as stub:
        loaded = load(stub)
        shutil.rmtree(folder)
        if made_again:
            folder.mkdir()
        for change in (load, tune, delete):
            with pytest.raises(grpc.RpcError) as caught:
                change(stub)
            assert refusal(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
            assert "The store's folder was deleted or replaced while the server runs" in str(caught.value.details())
            assert infer(stub) == loaded.revision
        if not made_again:
            return
        with in_process_server(store=folder) as other_address, connect(other_address) as other:
            assert load(other, 50).revision != loaded.revision
            with pytest.raises(grpc.RpcError):
                delete(stub)
            assert infer(other) != infer(stub) == loaded.revision
            with pytest.raises(StartupError, match="A server already uses"), in_process_server(store=folder):
                pass


def test_a_reference_whose_files_are_gone_can_be_deleted_as_long_as_it_answers(tmp_path: Path) -> None:
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        loaded = load(stub)
        shutil.rmtree(tmp_path / "parcel")
        assert infer(stub) == loaded.revision
        assert delete(stub) == loaded.revision
        with pytest.raises(grpc.RpcError) as caught:
            infer(stub)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")


def test_a_flipped_bit_in_the_pointer_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        loaded = load(stub)
        load(stub, reference_id="other")
    pointer = tmp_path / "parcel/current.json"
    pointer.write_bytes(
        pointer.read_bytes().replace(loaded.revision[:4].encode(), b"0" + loaded.revision[1:4].encode())
    )
    if loaded.revision[0] == "0":
        pytest.fail("the test needs another image")
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            infer(stub)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "REFERENCE_DAMAGED")
        assert "'parcel' cannot be used" in caplog.text
        listed = stub.ListReferences(reference_pb2.ListReferencesRequest()).references
        assert [reference.reference_id for reference in listed] == ["other"]
        with pytest.raises(StartupError, match="Stop it"):
            restore(tmp_path, "parcel")
    restore(tmp_path, "parcel")
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        assert infer(stub) == loaded.revision


@pytest.mark.parametrize("pattern", ["current.json", "*/manifest.json", "*/bank.safetensors"])
def test_after_any_flipped_bit_the_others_serve_nothing_is_removed_and_a_load_repairs_it(
    tmp_path: Path, pattern: str
) -> None:
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        loaded = load(stub)
        other = load(stub, reference_id="other")
    (path,) = (tmp_path / "parcel").glob(pattern)
    damaged = bytearray(path.read_bytes())
    damaged[10] ^= 1  # in the first field, or in the header
    path.write_bytes(damaged)
    files = sorted(tmp_path.rglob("*"))
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            infer(stub)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "REFERENCE_DAMAGED")
        assert '"parcel" is damaged: its ' in str(caught.value.details())
        get = reference_pb2.GetReferenceRequest(reference_id="other")
        described = stub.GetReference(get).reference
        described.ClearField("drift")  # only descriptions have it
        assert described == other
        assert sorted(tmp_path.rglob("*")) == files
        assert load(stub).revision == loaded.revision == infer(stub)
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        assert infer(stub) == loaded.revision
