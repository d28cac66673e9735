"""A tuned reference over restarts, with other changes at the same time, and with a disk that is full."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest
from e2e.harness import Stub, connect, refusal
from e2e.in_process import in_process_server
from fakes.gray import gray_png

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.store import bank_file


def load(stub: Stub, level: int = 100, **fields: object) -> reference_pb2.Reference:
    request = reference_pb2.LoadReferenceRequest(images=[gray_png(level)], **fields)  # type: ignore[arg-type]
    return stub.LoadReference(request).reference


def tune(stub: Stub, sensitivity: float, expected: str = "") -> reference_pb2.Reference:
    request = reference_pb2.TuneReferenceRequest(sensitivity=sensitivity, expected_revision=expected)
    return stub.TuneReference(request).reference


def current(stub: Stub) -> reference_pb2.GetReferenceResponse:
    return stub.GetReference(reference_pb2.GetReferenceRequest())


def threshold(stub: Stub) -> float:
    """That of a response."""
    return stub.Infer(inference_pb2.InferRequest(image=gray_png(101))).anomaly.raw_threshold


def test_a_sensitivity_is_there_after_a_restart(tmp_path: Path) -> None:
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        loaded = load(stub, image_names=["gray.png"])
        tune(stub, 1.7)
        tuned = current(stub)
        assert tuned.reference.revision != loaded.revision
        assert [image.name for image in tuned.images] == ["gray.png"]
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        assert current(stub) == tuned
        assert threshold(stub) == pytest.approx(loaded.threshold / 1.7)
        grown = load(stub, 120, mode=reference_pb2.LOAD_MODE_APPEND)
        assert (grown.sensitivity, grown.image_count) == (1.7, 2)
        assert load(stub).sensitivity == 1
        assert load(stub, sensitivity=0.6).sensitivity == 0.6


def test_a_preload_at_the_next_start_keeps_the_sensitivity(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "gray.png").write_bytes(gray_png(100))
    with in_process_server(store=tmp_path / "store", preload=images) as address, connect(address) as stub:
        assert current(stub).reference.sensitivity == 1
        tuned = tune(stub, 1.7)
    with in_process_server(store=tmp_path / "store", preload=images) as address, connect(address) as stub:
        assert current(stub).reference.revision == tuned.revision
        assert [image.name for image in current(stub).images] == ["gray.png"]


def test_of_many_tunes_of_one_revision_exactly_one_succeeds(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()

    def attempt(address: str, sensitivity: float, expected: str) -> None:
        with connect(address) as stub:
            try:
                outcome = f"tuned to {tune(stub, sensitivity, expected).revision}"
            except grpc.RpcError as error:
                outcome = refusal(error)[1]
            outcomes[outcome] += 1

    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        loaded = load(stub)
        threads = [
            threading.Thread(target=attempt, args=(address, 2 + number / 10, loaded.revision)) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes[f"tuned to {current(stub).reference.revision}"] == 1
    assert outcomes["REVISION_MISMATCH"] + outcomes["REFERENCE_CHANGED"] == 7


def test_a_tune_that_cannot_be_saved_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        load(stub)
        before, files = current(stub), sorted(tmp_path.rglob("*"))
        with monkeypatch.context() as patch:
            patch.setattr(bank_file, "save_file", full)
            with pytest.raises(grpc.RpcError) as caught:
                tune(stub, 2)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
        assert current(stub) == before
        assert threshold(stub) == pytest.approx(before.reference.threshold)
        assert sorted(tmp_path.rglob("*")) == files
        assert tune(stub, 2).sensitivity == 2


def test_a_reference_that_is_damaged_cannot_be_tuned(tmp_path: Path) -> None:
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        load(stub)
    (bank,) = tmp_path.glob("default/*/bank.safetensors")
    bank.write_bytes(bank.read_bytes()[:-1])
    with in_process_server(store=tmp_path) as address, connect(address) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            tune(stub, 2)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "REFERENCE_DAMAGED")
        assert bank.exists()


def test_a_reference_that_is_not_open_is_read_to_be_tuned(tmp_path: Path) -> None:
    """Two references of which only one fits into memory."""
    images = [gray_png(level) for level in range(700)]
    with (
        in_process_server(store=tmp_path, max_bank_mib=1, max_reference_images=1000) as address,
        connect(address) as stub,
    ):
        for name in ("default", "other"):
            stub.LoadReference(reference_pb2.LoadReferenceRequest(reference_id=name, images=images))
        tuned = tune(stub, 2)
        assert (tuned.sensitivity, tuned.image_count) == (2, 700)
        assert tune(stub, 1).sensitivity == 1
