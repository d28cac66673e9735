"""The references that serve: in memory, backed by a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakSet

from patchserve_server.domain.errors import (
    MemoryBudgetError,
    PatchserveError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.domain.ports import ReferenceStore
from patchserve_server.domain.reference import Reference, ReferenceFacts

T = TypeVar("T")

_log = logging.getLogger(__name__)

Listener = Callable[[Reference | None], None]
"""Called on the event loop with the new revision of a reference, or None when it was deleted."""


class Catalog:
    """What is loaded, by id. Changes go to the store first and are made one at a time.

    Banks take at most so much memory. Where the store is durable, those that were not used longest leave memory for
    others and are read again when they are asked for; else a load over the bound is refused.
    """

    def __init__(
        self, store: ReferenceStore, executor: Executor, *, max_bank_bytes: int, bytes_per_reference: int = 0
    ) -> None:
        self._store = store
        self._executor = executor
        self._max_bank_bytes = max_bank_bytes
        self._bytes_per_reference = bytes_per_reference  # beside its bank
        self._facts: dict[str, ReferenceFacts] = {}
        self._in_memory: dict[str, Reference] = {}  # in the order of their last use
        self._alive: WeakSet[Reference] = WeakSet()  # also those that only an open stream still has
        self._damaged: dict[str, PatchserveError] = {}
        self._listeners: dict[str, set[Listener]] = {}
        self._change = asyncio.Lock()

    async def load_all(self) -> None:
        """Reads every stored reference; one that cannot be read is named in the log and answered with its error."""
        for reference_id in await self._on_store(self._store.list_ids):
            try:
                reference = await self._on_store(self._store.load, reference_id)
                self._make_room(reference.facts)
            except PatchserveError as error:
                _log.error("Reference %r is not served: %s", reference_id, error.message)
                self._damaged[reference_id] = error
            else:
                self._keep(reference)

    def in_memory(self) -> list[Reference]:
        """Those whose banks are in memory."""
        return list(self._in_memory.values())

    async def get(self, reference_id: str, expected_revision: str = "") -> Reference:
        """The revision that serves now; read from the store where its bank has left memory.

        Raises:
            ReferenceNotFoundError, ReferenceDamagedError, RevisionMismatchError: as `facts`.
            MemoryBudgetError: open streams have all the memory that banks may take.
            StorageUnavailableError: it cannot be read.
        """
        self.facts(reference_id, expected_revision)
        if reference_id not in self._in_memory:
            async with self._change:
                facts = self.facts(reference_id, expected_revision)
                if reference_id not in self._in_memory:
                    await self._read_again(facts)
        reference = self._in_memory[reference_id] = self._in_memory.pop(reference_id)  # it goes to the end
        return reference

    async def _read_again(self, facts: ReferenceFacts) -> None:
        if (still := next((it for it in self._alive if it.facts == facts), None)) is not None:
            self._keep(still)
            return
        self._make_room(facts)
        try:
            reference = await self._on_store(self._store.load, facts.reference_id)
        except (ReferenceNotFoundError, ReferenceDamagedError) as error:
            _log.error("Reference %r is not served any longer: %s", facts.reference_id, error.message)
            del self._facts[facts.reference_id]
            self._damaged[facts.reference_id] = error
            raise
        self._keep(reference)
        _log.info("The bank of reference %r was read again", facts.reference_id)

    def facts(self, reference_id: str, expected_revision: str = "") -> ReferenceFacts:
        """What is known of the revision that serves now. Never waits.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: it is in the store but cannot be read.
            RevisionMismatchError: it is not the expected one.
        """
        facts = self._facts.get(reference_id)
        if facts is None:
            raise self._damaged.get(reference_id) or ReferenceNotFoundError(reference_id)
        if expected_revision and facts.revision != expected_revision:
            raise RevisionMismatchError(reference_id, expected_revision, facts.revision)
        return facts

    def find(self, reference_id: str) -> ReferenceFacts | None:
        """The same, or None."""
        return self._facts.get(reference_id)

    def page(self, after_id: str, size: int) -> tuple[list[ReferenceFacts], bool]:
        """Up to `size` references with greater ids, in order, and whether more follow."""
        ids = sorted(reference_id for reference_id in self._facts if reference_id > after_id)
        return [self._facts[reference_id] for reference_id in ids[:size]], len(ids) > size

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
            if replaces is not None and self.find(reference.reference_id) != replaces.facts:
                raise ReferenceChangedError(reference.reference_id)
            self._make_room(reference.facts)
            await self._on_store(self._store.save, reference)
            self._keep(reference)
            self._tell(reference.reference_id, reference)

    async def delete(self, reference_id: str, expected_revision: str) -> str:
        """Removes a reference from store and memory; returns the revision that it had ("" for a damaged one)."""
        return await asyncio.shield(asyncio.ensure_future(self._delete(reference_id, expected_revision)))

    async def _delete(self, reference_id: str, expected_revision: str) -> str:
        async with self._change:
            damaged = reference_id in self._damaged and not expected_revision
            revision = "" if damaged else self.facts(reference_id, expected_revision).revision
            await self._on_store(self._store.delete, reference_id)
            self._facts.pop(reference_id, None)
            self._in_memory.pop(reference_id, None)
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

    def _keep(self, reference: Reference) -> None:
        self._damaged.pop(reference.reference_id, None)
        self._facts[reference.reference_id] = reference.facts
        self._in_memory.pop(reference.reference_id, None)
        self._in_memory[reference.reference_id] = reference
        self._alive.add(reference)

    def _make_room(self, facts: ReferenceFacts) -> None:
        """Lets banks go until another has room, those first that were not used longest.

        Raises:
            MemoryBudgetError: there is none, or none may go.
        """
        if self._with(facts, []) <= self._max_bank_bytes and self._store.is_durable:
            idle = [reference_id for reference_id in self._in_memory if reference_id != facts.reference_id]
            while idle and self._with(facts, self._alive) > self._max_bank_bytes:
                del self._in_memory[idle.pop(0)]
        needed = self._with(facts, self._alive)
        if needed > self._max_bank_bytes:
            message = (
                f"With this reference the banks in use would take {needed / 2**20:.0f} MiB; the server allows "
                f"{self._max_bank_bytes / 2**20:.0f} MiB. Delete a reference, load fewer images or use a coreset."
            )
            raise MemoryBudgetError(message)

    def _with(self, facts: ReferenceFacts, references: Iterable[Reference]) -> int:
        """The bytes of these references and of one that takes the place of what has its id."""
        replaced = self._in_memory.get(facts.reference_id)
        others = (it.model.bank.nbytes for it in references if it is not replaced)
        return sum(nbytes + self._bytes_per_reference for nbytes in (facts.bank_bytes, *others))

    async def _on_store(self, function: Callable[..., T], *arguments: object) -> T:
        # The pool's thread lets go of its last task at some later moment. A bank among a task's arguments or its result
        # would count as in use until then, so both go through lists that are empty once the task is done.
        given, found = [arguments], list[T]()
        await asyncio.get_running_loop().run_in_executor(self._executor, lambda: found.append(function(*given.pop())))
        return found.pop()
