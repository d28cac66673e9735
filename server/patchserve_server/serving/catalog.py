"""The references that serve: in memory, backed by a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from patchserve_server.domain.errors import (
    MemoryBudgetError,
    PatchserveError,
    ReferenceChangedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.domain.ports import ReferenceStore
from patchserve_server.domain.reference import Reference

_log = logging.getLogger(__name__)

Listener = Callable[[Reference | None], None]
"""Called on the event loop with the new revision of a reference, or None when it was deleted."""


class Catalog:
    """What is loaded, by id. Reads never wait; changes go to the store first and are made one at a time."""

    def __init__(
        self, store: ReferenceStore, executor: Executor, *, max_bank_bytes: int, bytes_per_reference: int = 0
    ) -> None:
        self._store = store
        self._executor = executor
        self._max_bank_bytes = max_bank_bytes
        self._bytes_per_reference = bytes_per_reference  # beside its bank
        self._references: dict[str, Reference] = {}
        self._damaged: dict[str, PatchserveError] = {}
        self._listeners: dict[str, set[Listener]] = {}
        self._change = asyncio.Lock()

    async def load_all(self) -> None:
        """Reads every stored reference; one that cannot be read is named in the log and answered with its error."""
        loop = asyncio.get_running_loop()
        for reference_id in await loop.run_in_executor(self._executor, self._store.list_ids):
            try:
                reference = await loop.run_in_executor(self._executor, self._store.load, reference_id)
                self._check_budget(reference)
            except PatchserveError as error:
                _log.error("Reference %r is not served: %s", reference_id, error.message)
                self._damaged[reference_id] = error
            else:
                self._references[reference_id] = reference

    def get(self, reference_id: str, expected_revision: str = "") -> Reference:
        """The revision that serves now.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: it is in the store but cannot be read.
            RevisionMismatchError: it is not the expected one.
        """
        reference = self._references.get(reference_id)
        if reference is None:
            raise self._damaged.get(reference_id) or ReferenceNotFoundError(reference_id)
        if expected_revision and reference.revision != expected_revision:
            raise RevisionMismatchError(reference_id, expected_revision, reference.revision)
        return reference

    def find(self, reference_id: str) -> Reference | None:
        """The revision that serves now, or None."""
        return self._references.get(reference_id)

    def page(self, after_id: str, size: int) -> tuple[list[Reference], bool]:
        """Up to `size` references with greater ids, in order, and whether more follow."""
        ids = sorted(reference_id for reference_id in self._references if reference_id > after_id)
        return [self._references[reference_id] for reference_id in ids[:size]], len(ids) > size

    async def publish(self, reference: Reference, *, replaces: Reference | None = None) -> None:
        """Saves a revision, then serves it. The old one serves until the new one is safe.

        Raises:
            ReferenceChangedError: `replaces` is no longer the one that serves.
            MemoryBudgetError, StorageFullError, StorageUnavailableError: the old revision stays.
        """
        # A save that has begun is finished even if the caller leaves, so that store and memory agree.
        await asyncio.shield(asyncio.ensure_future(self._publish(reference, replaces)))

    async def _publish(self, reference: Reference, replaces: Reference | None) -> None:
        async with self._change:
            if replaces is not None and self.find(reference.reference_id) is not replaces:
                raise ReferenceChangedError(reference.reference_id)
            self._check_budget(reference)
            await asyncio.get_running_loop().run_in_executor(self._executor, self._store.save, reference)
            self._references[reference.reference_id] = reference
            self._damaged.pop(reference.reference_id, None)
            self._tell(reference.reference_id, reference)

    async def delete(self, reference_id: str, expected_revision: str) -> str:
        """Removes a reference from store and memory; returns the revision that it had ("" for a damaged one)."""
        return await asyncio.shield(asyncio.ensure_future(self._delete(reference_id, expected_revision)))

    async def _delete(self, reference_id: str, expected_revision: str) -> str:
        async with self._change:
            damaged = reference_id in self._damaged and not expected_revision
            revision = "" if damaged else self.get(reference_id, expected_revision).revision
            await asyncio.get_running_loop().run_in_executor(self._executor, self._store.delete, reference_id)
            self._references.pop(reference_id, None)
            self._damaged.pop(reference_id, None)
            self._tell(reference_id, None)
            return revision

    @contextmanager
    def listen(self, reference_id: str, listener: Listener) -> Iterator[None]:
        """Tells the listener of every change to this reference."""
        self._listeners.setdefault(reference_id, set()).add(listener)
        try:
            yield
        finally:
            listeners = self._listeners[reference_id]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[reference_id]

    def _tell(self, reference_id: str, reference: Reference | None) -> None:
        for listener in list(self._listeners.get(reference_id, ())):
            listener(reference)

    def _check_budget(self, reference: Reference) -> None:
        others = (it for it in self._references.values() if it.reference_id != reference.reference_id)
        needed = sum(it.model.bank.nbytes + self._bytes_per_reference for it in (reference, *others))
        if needed > self._max_bank_bytes:
            message = (
                f"With this reference all banks would take {needed / 2**20:.0f} MiB; the server allows "
                f"{self._max_bank_bytes / 2**20:.0f} MiB. Delete a reference, load fewer pictures or use a coreset."
            )
            raise MemoryBudgetError(message)
