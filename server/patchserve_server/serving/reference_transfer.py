"""References as single files, from one server to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from patchserve_server.domain.errors import BankMismatchError, InvalidInputError, MemoryBudgetError
from patchserve_server.domain.ports import Detector, ImportedReference, OutgoingFile, ReferenceFiles
from patchserve_server.domain.reference import Reference, ReferenceInfo, ReferenceOperation
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.entering import entered
from patchserve_server.serving.reference_use import OpenReference

CHUNK_BYTES: Final = 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a file is imported.

    Raises:
        InvalidInputError: the size is not positive.
    """

    size_bytes: int
    reference_id: ReferenceId | None = None  # None: the one in the file
    expected_revision: Revision | None = None  # that it replaces; None: any, or none

    def __post_init__(self) -> None:
        if self.size_bytes < 1:
            raise InvalidInputError("size_bytes", "size_bytes must be the size of the file, in bytes.")


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """A reference that is being sent."""

    info: ReferenceInfo
    size_bytes: int
    chunks: AsyncIterator[bytes]


class ReferenceTransfer:
    """Writes references to files, and publishes those of files.

    Args:
        catalog: of all references.
        detector: opens what is imported.
        files: their format.
        executor: reads, writes and opens.
        max_bytes: the memory limit of all open references together.
    """

    def __init__(
        self, catalog: Catalog, detector: Detector, files: ReferenceFiles, executor: Executor, *, max_bytes: int
    ) -> None:
        self._catalog = catalog
        self._detector = detector
        self._files = files
        self._executor = executor
        self._max_bytes = max_bytes
        self._reading = asyncio.Lock()  # one imported bank at a time is in memory and not yet counted

    @asynccontextmanager
    async def export(self, reference_id: ReferenceId, expected_revision: Revision | None) -> AsyncIterator[Export]:
        """The file of the current revision, until the block ends.

        Raises:
            StorageFullError, StorageUnavailableError: it cannot be written.
            The errors of Catalog.use.
        """
        async with (
            self._catalog.use(reference_id, expected_revision) as opened,
            entered(self._files.export(_reference_of(opened)), self._executor) as file,
        ):
            yield Export(opened.info, file.size_bytes, self._chunks(file))

    async def _chunks(self, file: OutgoingFile) -> AsyncIterator[bytes]:
        while chunk := await self._run(partial(file.read, CHUNK_BYTES)):
            yield chunk

    async def import_reference(self, options: ImportOptions, chunks: AsyncIterator[bytes]) -> ReferenceInfo:
        """Publishes the reference of a file. Until it is whole and verified, nothing changes.

        Raises:
            ReferenceFileError: it is not such a file, not whole, or damaged.
            BankMismatchError: it was made with another backbone, other weights or another precision.
            MemoryBudgetError: it does not fit into the memory limit.
            The errors of Catalog.info for the expected revision, and those of Catalog.publish.
        """
        self._catalog.check_reachable()
        replaced = None
        if options.expected_revision is not None:
            reference_id = _expected_id(options)
            replaced = await self._catalog.info(reference_id, options.expected_revision)
        if options.size_bytes > (largest := self._files.largest_for(self._max_bytes)):
            message = (
                f"The file has {options.size_bytes:,} bytes; the server allows {largest:,}, because "
                f"all references together may use {self._max_bytes / 2**20:.0f} MiB (--max-bank-mib)."
            )
            raise MemoryBudgetError(message)
        async with entered(self._files.receive(options.size_bytes), self._executor) as file:
            async for chunk in chunks:
                await self._run(partial(file.write, chunk))
            async with self._reading:
                return await self._publish(await self._run(file.finish), options.reference_id, replaced)

    async def _publish(
        self, imported: ImportedReference, reference_id: ReferenceId | None, replaced: ReferenceInfo | None
    ) -> ReferenceInfo:
        reference_id = reference_id or imported.reference_id
        now, existing = datetime.now(UTC), await self._catalog.current(reference_id)
        reference = Reference(
            reference_id=reference_id,
            revision=imported.revision,
            create_time=now if existing is None else existing.create_time,
            update_time=now,
            model=imported.model,
            images=imported.images,
            operation=ReferenceOperation.IMPORT,
        )
        needed_bytes = self._detector.open_nbytes(reference.info)
        if needed_bytes > self._max_bytes:
            message = (
                f'Reference "{reference_id}" needs {needed_bytes / 2**20:.0f} MiB; the server allows '
                f"{self._max_bytes / 2**20:.0f} MiB for all references (--max-bank-mib)."
            )
            raise MemoryBudgetError(message)
        try:
            scorer = await self._run(partial(self._detector.open, imported.model))
        except BankMismatchError as error:
            raise error.for_reference(reference_id) from None  # its cause would keep the bank in memory
        return await self._catalog.publish(reference, scorer, replaces=replaced)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _expected_id(options: ImportOptions) -> ReferenceId:
    if options.reference_id is None:
        raise InvalidInputError("start.reference_id", "start.expected_revision needs start.reference_id too.")
    return options.reference_id


def _reference_of(opened: OpenReference) -> Reference:
    """The revision that is open. The scorer may be that of a revision with another sensitivity."""
    info = opened.info
    model = replace(opened.scorer.model, sensitivity=info.sensitivity)
    return Reference(info.reference_id, info.revision, info.create_time, info.update_time, model, info.images)
