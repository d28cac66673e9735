"""References as files: nothing changes until a file is whole and verified, and nothing is left of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.catalogs import CatalogFactory, publish
from fakes.gray import reference
from fakes.waiting import until

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    BankMismatchError,
    InvalidInputError,
    MemoryBudgetError,
    ReferenceFileError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.domain.reference import Reference, ReferenceInfo, ReferenceOperation
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.reference_transfer import ImportOptions, ReferenceTransfer
from patchserve_server.store import ExportedFiles, MemoryReferenceStore, exported, generation

BELT = ReferenceId("belt")
MAX_BYTES = 50_000


class Bench:
    def __init__(self, factory: CatalogFactory, pool: ThreadPoolExecutor, folder: Path) -> None:
        self.catalog: Catalog = factory.catalog(MemoryReferenceStore(), MAX_BYTES)
        self.detector, self.folder = factory.detector, folder
        self.transfer = ReferenceTransfer(self.catalog, self.detector, ExportedFiles(folder), pool, max_bytes=MAX_BYTES)

    async def exported(self, reference_id: ReferenceId = DEFAULT_REFERENCE_ID) -> bytes:
        async with self.transfer.export(reference_id, None) as export:
            data = b"".join([chunk async for chunk in export.chunks])
            assert len(data) == export.size_bytes
            return data

    async def imported(self, data: bytes, **options: object) -> ReferenceInfo:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 500):
                yield data[start : start + 500]

        return await self.transfer.import_reference(
            ImportOptions(len(data), **options),  # type: ignore[arg-type] # of any test
            chunks(),
        )

    def left_behind(self) -> list[Path]:
        return list(self.folder.iterdir())


@pytest.fixture
def bench(factory: CatalogFactory, tmp_path: Path) -> Iterator[Bench]:
    with ThreadPoolExecutor(2) as pool:
        yield Bench(factory, pool, tmp_path)


def named(reference: Reference) -> Reference:
    return replace(reference, images=(ReferenceImage("ten.png", "image/png", 4, 4, 9),))


async def test_a_copy_has_the_revision_and_the_images_of_the_original(bench: Bench) -> None:
    original = (await publish(bench.catalog, named(reference()))).info
    await bench.catalog.tune(DEFAULT_REFERENCE_ID, 2.0)
    tuned = await bench.catalog.info(DEFAULT_REFERENCE_ID)
    copied = await bench.imported(await bench.exported(), reference_id=BELT)
    assert copied == await bench.catalog.info(BELT)
    assert (copied.reference_id, copied.revision, copied.sensitivity) == (BELT, tuned.revision, 2.0)
    assert (copied.images, copied.operation) == (original.images, ReferenceOperation.IMPORT)
    assert copied.previous_revision is None
    assert not bench.left_behind()


async def test_what_is_replaced_can_be_restored(bench: Bench) -> None:
    data = await _exported_alone(bench)
    other = (await publish(bench.catalog, reference(level=7))).info
    imported = await bench.imported(data)
    assert imported.previous_revision == other.revision
    assert (await bench.catalog.restore(DEFAULT_REFERENCE_ID)).revision == other.revision


async def _exported_alone(bench: Bench) -> bytes:
    await publish(bench.catalog, reference(level=100))
    data = await bench.exported()
    await bench.catalog.delete(DEFAULT_REFERENCE_ID)
    return data


async def test_an_expected_revision_protects_what_is_replaced(bench: Bench) -> None:
    data = await _exported_alone(bench)
    with pytest.raises(ReferenceNotFoundError):
        await bench.imported(data, reference_id=BELT, expected_revision=revision_of(reference().model))
    current = (await publish(bench.catalog, reference("belt", level=7))).info
    with pytest.raises(RevisionMismatchError):
        await bench.imported(data, reference_id=BELT, expected_revision=revision_of(reference().model))
    with pytest.raises(InvalidInputError, match=r"needs start\.reference_id"):
        await bench.imported(data, expected_revision=current.revision)
    assert await bench.catalog.info(BELT) == current
    imported = await bench.imported(data, reference_id=BELT, expected_revision=current.revision)
    assert imported.previous_revision == current.revision


async def test_a_damaged_file_changes_nothing(bench: Bench) -> None:
    data = await _exported_alone(bench)
    for damaged in (data[:-1] + bytes([data[-1] ^ 1]), data[: len(data) // 2], b"no file"):
        with pytest.raises(ReferenceFileError):
            await bench.imported(damaged)
    assert bench.catalog.find(DEFAULT_REFERENCE_ID) is None
    assert not bench.left_behind()


async def test_a_bank_of_another_network_is_refused_as_opening_it_would_be(bench: Bench) -> None:
    made = reference()
    model = replace(made.model, spec=replace(made.model.spec, weights_digest="1" * 64))
    foreign = replace(made, model=model, revision=revision_of(model))
    with ExportedFiles(bench.folder).export(foreign) as file:
        data = b"".join(iter(lambda: file.read(500), b""))
    with pytest.raises(BankMismatchError) as caught:
        await bench.imported(data, reference_id=BELT)
    assert caught.value.subject == "belt"
    assert bench.catalog.find(BELT) is None
    assert not bench.left_behind()


async def test_a_file_that_is_too_large_is_refused_before_it_is_sent(bench: Bench) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        raise AssertionError("It was asked for.")
        yield b""

    with pytest.raises(MemoryBudgetError, match="--max-bank-mib"):
        await bench.transfer.import_reference(ImportOptions(2**40), chunks())
    with pytest.raises(InvalidInputError):
        ImportOptions(0)
    assert not bench.left_behind()


async def test_a_bank_that_does_not_fit_is_refused_before_it_is_opened(bench: Bench) -> None:
    large = reference(images=100)  # 76,800 bytes of inputs
    with ExportedFiles(bench.folder).export(large) as file:
        data = b"".join(iter(lambda: file.read(2**16), b""))
    with pytest.raises(MemoryBudgetError, match="--max-bank-mib"):
        await bench.imported(data)
    assert not bench.detector.openings
    assert not bench.left_behind()


async def test_a_caller_who_leaves_leaves_nothing_behind(bench: Bench) -> None:
    data, sent = await _exported_alone(bench), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield data[:500]
        sent.set()
        await asyncio.Event().wait()

    importing = asyncio.create_task(bench.transfer.import_reference(ImportOptions(len(data)), chunks()))
    await sent.wait()
    assert bench.left_behind()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert not bench.left_behind()


async def test_a_caller_who_leaves_while_the_file_is_written_leaves_nothing_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(bench.catalog, reference())
    began, gate = threading.Event(), threading.Event()
    write = generation.write_generation

    def slow(*arguments: object) -> None:
        began.set()
        assert gate.wait(30)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exported, "write_generation", slow)
    exporting = asyncio.create_task(bench.exported())
    await until(began.is_set)
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    gate.set()
    await until(lambda: not bench.left_behind())


async def test_history_has_the_revisions_that_are_kept_and_what_made_them(bench: Bench) -> None:
    with pytest.raises(ReferenceNotFoundError):
        await bench.catalog.history(DEFAULT_REFERENCE_ID)
    first = (await publish(bench.catalog, replace(reference(), operation=ReferenceOperation.LOAD))).info
    assert await bench.catalog.history(DEFAULT_REFERENCE_ID) == [first]
    await bench.catalog.tune(DEFAULT_REFERENCE_ID, 2.0)
    tuned, previous = await bench.catalog.history(DEFAULT_REFERENCE_ID)
    assert (tuned.operation, tuned.sensitivity) == (ReferenceOperation.TUNE, 2.0)
    assert (previous.operation, previous.revision) == (ReferenceOperation.LOAD, first.revision)
    await bench.catalog.restore(DEFAULT_REFERENCE_ID)
    restored, previous = await bench.catalog.history(DEFAULT_REFERENCE_ID)
    assert (restored.operation, previous.operation) == (ReferenceOperation.LOAD, ReferenceOperation.TUNE)
