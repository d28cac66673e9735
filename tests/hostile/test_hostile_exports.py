"""Exported references that are damaged, cut off or made up are refused, and leave nothing behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.references import make_model, make_reference, make_subspace_model, model_content, named
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchserve_server.domain.errors import ReferenceFileError
from patchserve_server.domain.ports import ImportedReference
from patchserve_server.domain.reference import Reference, ReferenceModel
from patchserve_server.store import ExportedFiles
from patchserve_server.store.exported import MAGIC

REFERENCE = make_reference("parcel", patches=20)
HEAD_AT = len(MAGIC) + 8


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def exported(reference: Reference, folder: Path, max_bytes: int = 1000) -> bytes:
    with ExportedFiles(folder).export(reference) as file:
        data = b"".join(iter(lambda: file.read(max_bytes), b""))
        assert len(data) == file.size_bytes
        assert not file.read(max_bytes)
    assert not list(folder.iterdir())
    return data


def imported(data: bytes, folder: Path, *, chunk_bytes: int = 1000, size_bytes: int | None = None) -> ImportedReference:
    try:
        with ExportedFiles(folder).receive(len(data) if size_bytes is None else size_bytes) as file:
            for start in range(0, len(data), chunk_bytes):
                file.write(data[start : start + chunk_bytes])
            return file.finish()
    finally:
        assert not list(folder.iterdir())


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return exported(REFERENCE, tmp_path)


@pytest.mark.parametrize("reference", [REFERENCE, named(make_subspace_model(), "flat")], ids=["bank", "subspace"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 2**20])
def test_what_is_imported_is_what_was_exported(reference: Reference, tmp_path: Path, chunk_bytes: int) -> None:
    data = exported(reference, tmp_path, chunk_bytes)
    read = imported(data, tmp_path, chunk_bytes=chunk_bytes)
    assert (read.reference_id, read.revision) == (reference.reference_id, reference.revision)
    assert (model_content(read.model), read.images) == (model_content(reference.model), reference.images)
    assert exported(named(read.model, reference.reference_id), tmp_path) == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(at=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_no_flipped_bit_is_accepted(data: bytes, tmp_path: Path, at: int, bit: int) -> None:
    at %= len(data)
    flipped = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    with pytest.raises(ReferenceFileError):
        imported(flipped, tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(length=st.integers(0, 2**20))
def test_no_part_of_a_file_is_accepted(data: bytes, tmp_path: Path, length: int) -> None:
    length %= len(data)
    for announced in (length, len(data)):
        with pytest.raises(ReferenceFileError):
            imported(data[:length], tmp_path, size_bytes=announced)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(noise=st.binary(max_size=200))
def test_noise_is_refused(tmp_path: Path, noise: bytes) -> None:
    for data in (noise, MAGIC + noise, MAGIC + len(noise).to_bytes(8, "little") + noise):
        with pytest.raises(ReferenceFileError):
            imported(data, tmp_path, chunk_bytes=10)


def with_head(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    """A file whose head is another, and whose digest fits it."""

    def made(data: bytes) -> bytes:
        length = int.from_bytes(data[len(MAGIC) : HEAD_AT], "little")
        head = json.loads(data[HEAD_AT : HEAD_AT + length])
        change(head)
        text = json.dumps(head).encode()
        whole = MAGIC + len(text).to_bytes(8, "little") + text + data[HEAD_AT + length : -32]
        return whole + hashlib.sha256(whole).digest()

    return made


def with_bank(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A file whose bank is another of the same length, and whose digest fits it."""

    def made(data: bytes) -> bytes:
        length = int.from_bytes(data[len(MAGIC) : HEAD_AT], "little")
        head = json.loads(data[HEAD_AT : HEAD_AT + length])
        at = HEAD_AT + length + head["manifest_bytes"]
        bank = change(data[at:-32])
        assert len(bank) == head["bank_bytes"]
        whole = data[:at] + bank
        return whole + hashlib.sha256(whole).digest()

    return made


HARM: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "an id that leads to another folder": (with_head(lambda head: head.update(reference_id="../a")), "reference_id is"),
    "a revision that leads to another folder": (with_head(lambda head: head.update(revision="../a")), "revision"),
    "another revision": (with_head(lambda head: head.update(revision="0" * 64)), "belongs to another revision"),
    "a newer version": (with_head(lambda head: head.update(format_version=2)), "version 1 only"),
    "an unknown field": (with_head(lambda head: head.update(more=1)), "more"),
    "a missing field": (with_head(lambda head: head.pop("bank_bytes")), "bank_bytes"),
    "a huge bank": (with_head(lambda head: head.update(bank_bytes=2**62)), "must have"),
    "a huge manifest": (with_head(lambda head: head.update(manifest_bytes=2**40)), "manifest has more than"),
    "a negative part": (with_head(lambda head: head.update(manifest_bytes=-1)), "manifest_bytes"),
    "a bank that is none": (with_bank(lambda bank: bytes(len(bank))), "bank file"),
    "another bank": (with_bank(lambda bank: bank[:-1] + bytes([bank[-1] ^ 1])), "does not match its revision"),
    "a long head": (lambda data: MAGIC + (2**40).to_bytes(8, "little") + data, "head has more than"),
    "more at the end": (lambda data: data + b"x", "must have"),
    "two files": (lambda data: data + data, "must have"),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_made_up_is_refused_by_name(data: bytes, tmp_path: Path, harm: str) -> None:
    make, problem = HARM[harm]
    made = make(data)
    with pytest.raises(ReferenceFileError) as caught:
        imported(made, tmp_path)
    assert problem in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_bytes_after_the_end_are_refused_at_once(data: bytes, tmp_path: Path) -> None:
    with ExportedFiles(tmp_path).receive(len(data)) as file, pytest.raises(ReferenceFileError, match="after its end"):
        file.write(data + b"x")


def with_manifest(data: bytes, manifest: bytes) -> bytes:
    """The file with another manifest, and with sizes and a digest that are right."""
    head_at = HEAD_AT + int.from_bytes(data[len(MAGIC) : HEAD_AT], "little")
    head = json.loads(data[HEAD_AT:head_at])
    bank = data[head_at + head["manifest_bytes"] : -32]
    changed = json.dumps({**head, "manifest_bytes": len(manifest)}, indent=2).encode() + b"\n"
    content = MAGIC + len(changed).to_bytes(8, "little") + changed + manifest + bank
    return content + hashlib.sha256(content).digest()


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b"[" + b"1," * 2**20 + b"1]", "its manifest has more than 1,048,576 values"),
        (b'{"x":' + b"[]," * 2**20 + b"0}", "its manifest has more than 1,048,576 values"),
        (b'["' + b"," * 2**21 + b'"]', "its manifest cannot be read"),  # one value
        (b'"' + b'\\"' * 2**22, "its manifest cannot be read"),  # a text without an end
    ],
    ids=["numbers", "arrays", "text", "endless"],
)
def test_a_manifest_of_very_many_values_is_not_parsed(
    data: bytes, tmp_path: Path, manifest: bytes, reason: str
) -> None:
    with pytest.raises(ReferenceFileError, match=reason):
        imported(with_manifest(data, manifest), tmp_path, chunk_bytes=2**20)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e20])
@pytest.mark.parametrize(
    ("model", "array"), [(make_model(), "patches"), (make_subspace_model(), "mean"), (make_subspace_model(), "basis")]
)
def test_vectors_that_no_backbone_makes_are_refused(
    tmp_path: Path, model: ReferenceModel, array: str, value: float
) -> None:
    """Their revision is right, because whoever makes them up computes it; their scores would be no numbers."""
    changed = getattr(model.bank, array).copy()
    changed.flat[-1] = value
    made_up = named(dataclasses.replace(model, bank=dataclasses.replace(model.bank, **{array: changed})))
    with pytest.raises(
        ReferenceFileError, match=rf"its array {array} has a value that is not finite, or beyond 1e\+15"
    ):
        imported(exported(made_up, tmp_path), tmp_path)
