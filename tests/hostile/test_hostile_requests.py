"""Ids that are paths, images that are addresses and text that forges log lines, sent to every method."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from e2e.harness import Stub, connect, load, refusal
from e2e.in_process import in_process_server
from fakes.images import card, encoded

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_server.store import FolderReferenceStore

BAD_IDS = [
    "../outside",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:\\a",
    "a\0b",
    "a\nb",
    "a b",
    "~root",
    "$HOME",
    "%2e%2e%2f",
    "file:///etc/passwd",
    "ａ",  # noqa: RUF001 - a letter that a file system may take for another
    "a" * 65,
    "a" * 2**12,
]
FORGED_LINE = "0" * 64 + "\n2030-01-01 00:00:00 INFO patchserve_server: all is well"
IMAGE = encoded(card(1))

Call = Callable[[Stub, str, str], object]  # with a reference id and an expected revision


def _stream(stub: Stub, reference_id: str, revision: str) -> object:
    config = stream_pb2.StreamConfig(reference_id=reference_id, expected_revision=revision)
    return list(stub.InferStream(iter([stream_pb2.InferStreamRequest(config=config)])))


def _load_stream(stub: Stub, reference_id: str, revision: str) -> object:
    start = reference_pb2.LoadReferenceRequest(
        reference_id=reference_id, expected_revision=revision, mode=reference_pb2.LOAD_MODE_APPEND, images=[IMAGE]
    )
    return stub.LoadReferenceStream(iter([reference_pb2.LoadReferenceStreamRequest(start=start)]))


BY_ID_AND_REVISION: dict[str, Call] = {
    "LoadReference": lambda stub, name, revision: load(
        stub, name, 1, expected_revision=revision, mode=reference_pb2.LOAD_MODE_APPEND
    ),
    "LoadReferenceStream": _load_stream,
    "DeleteReference": lambda stub, name, revision: stub.DeleteReference(
        reference_pb2.DeleteReferenceRequest(reference_id=name, expected_revision=revision)
    ),
    "Infer": lambda stub, name, revision: stub.Infer(
        inference_pb2.InferRequest(reference_id=name, expected_revision=revision, image=IMAGE)
    ),
    "InferStream": _stream,
}
BY_ID: dict[str, Call] = BY_ID_AND_REVISION | {
    "GetReference": lambda stub, name, _: stub.GetReference(reference_pb2.GetReferenceRequest(reference_id=name)),
    "ListLoads": lambda stub, name, _: stub.ListLoads(reference_pb2.ListLoadsRequest(reference_id=name)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parent") / "store"


@pytest.fixture(scope="module")
def stub(store: Path) -> Iterator[Stub]:
    with in_process_server(store=store) as address, connect(address) as stub:
        load(stub, "here", 1)
        yield stub


def paths_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", BY_ID)
def test_an_id_that_is_a_path_touches_no_file(stub: Stub, store: Path, name: str) -> None:
    before = paths_in(store.parent)
    for bad in BAD_IDS:
        with pytest.raises(grpc.RpcError) as caught:
            BY_ID[name](stub, bad, "")
        assert refusal(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), bad[:100]
        assert len(str(caught.value.details())) < 300, "the error does not repeat the id"
    assert paths_in(store.parent) == before


@pytest.mark.parametrize("name", BY_ID_AND_REVISION)
@pytest.mark.parametrize(
    "revision", [FORGED_LINE, "x" * 2**12, "../here", "0" * 63 + "G"], ids=["line", "long", "path", "G"]
)
def test_an_invalid_revision_appears_in_no_error_and_no_log(
    stub: Stub, caplog: pytest.LogCaptureFixture, name: str, revision: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(grpc.RpcError) as caught:
        BY_ID_AND_REVISION[name](stub, "here", revision)
    assert refusal(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert revision not in str(caught.value.details()) + caplog.text


def test_an_image_that_is_a_path_is_not_opened(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    card(1).save(file)
    addresses = [
        str(file),
        file.as_uri(),
        f"@{file}",
        f"<img src='{file}'/>",
        f"<svg><image href='{file}'/></svg>",
    ]
    for address in addresses:
        for call in (
            lambda image: stub.Infer(inference_pb2.InferRequest(reference_id="here", image=image)),
            lambda image: stub.LoadReference(reference_pb2.LoadReferenceRequest(reference_id="new", images=[image])),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(address.encode())
            assert refusal(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE_IMAGE")
            assert str(tmp_path) not in str(caught.value)


def test_an_internal_error_contains_no_path_and_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_store: object, _reference: object) -> None:
        raise RuntimeError(f"at {tmp_path}")

    monkeypatch.setattr(FolderReferenceStore, "save", failing)
    with in_process_server(store=tmp_path / "store") as address, connect(address) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            load(stub, "here", 1)
        assert refusal(caught.value)[:2] == (grpc.StatusCode.INTERNAL, "INTERNAL")
        for leak in (str(tmp_path), "Traceback", "RuntimeError", ".py"):
            assert leak not in str(caught.value.details()) + str(caught.value.trailing_metadata())


def test_an_error_of_the_store_contains_no_path(tmp_path: Path) -> None:
    with in_process_server(store=tmp_path / "store") as address, connect(address) as stub:
        load(stub, "here", 1)
        blocked = tmp_path / "store" / "there"
        blocked.write_bytes(b"a file where a folder should be")
        with pytest.raises(grpc.RpcError) as caught:
            load(stub, "there", 1)
        assert str(tmp_path) not in str(caught.value)
        assert refusal(caught.value)[0] is grpc.StatusCode.UNAVAILABLE
