"""The catalog: all references of the server and their changes, backed by a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from patchserve_server.domain.errors import (
    BankMismatchError,
    PatchserveError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionNotKeptError,
)
from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.domain.ports import Detector, KeptRevision, ReferenceStore, Scorer
from patchserve_server.domain.reference import Reference, ReferenceInfo, ReferenceModel
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.sensitivity import check_sensitivity
from patchserve_server.domain.work_events import ReferenceOpened, told
from patchserve_server.serving.known_references import KnownReferences, Listener, Listeners
from patchserve_server.serving.open_references import OpenReferences
from patchserve_server.serving.reference_history import history_of
from patchserve_server.serving.reference_use import HeldReference, OpenReference, ReferenceUse
from patchserve_server.serving.shared_scorer import can_score, tuned
from patchserve_server.serving.tasks import retrieve_error

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Catalog:
    """All references by id. Changes are made one at a time, in the store first. They do not delay inspections.

    Args:
        store: stores the references.
        detector: opens them.
        storage: the pool that saves and deletes.
        opening: the pool that loads and opens. As many references are opened at once as it has threads.
        max_bytes: the memory limit of all open references together.
        events: hears of every change and every opening.
        known: the descriptions of all references.
        everybody_knows: returns when all who have a copy of them know of every change.
    """

    def __init__(
        self,
        store: ReferenceStore,
        detector: Detector,
        *,
        storage: Executor,
        opening: Executor,
        max_bytes: int,
        events: Events = NOBODY,
        known: KnownReferences | None = None,
        everybody_knows: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._detector = detector
        self._storage = storage
        self._opening = opening
        self._events = events
        self._known = KnownReferences() if known is None else known
        self._everybody_knows = everybody_knows
        self._mismatched: dict[ReferenceId, BankMismatchError] = {}  # readable, but this detector cannot open it
        self._listeners = Listeners()
        self._change = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()
        self._open = OpenReferences(
            self._load_and_open,
            detector.open_nbytes,
            lambda info: detector.shared_nbytes(info.input_shape, info.options),
            self._forget_previous,
            max_bytes=max_bytes,
            may_close=store.is_durable,
        )

    async def load_all(self) -> None:
        """Reads every stored reference and opens as many as fit in memory. Logs each one that cannot be used."""
        loop = asyncio.get_running_loop()
        for reference_id in await loop.run_in_executor(self._opening, self._store.list_ids):
            try:
                reference = await loop.run_in_executor(self._opening, self._store.load, reference_id)
            except PatchserveError as error:
                _log.error("Reference %r cannot be used: %s", str(reference_id), error.message)
                self._known.set(reference_id, error)
                continue
            self._known.set(reference_id, info := reference.info)
            if self._open.has_room_for(info):
                try:
                    self._open.add(OpenReference(info, await self._open_model(info, reference.model)))
                except BankMismatchError as error:
                    _log.warning("Reference %r: %s", str(reference_id), error.message)
                except Exception:  # noqa: BLE001 - one reference must not stop the server
                    _log.exception("Reference %r cannot be opened; its first request tries again", str(reference_id))

    @property
    def usable_count(self) -> int:
        """How many references can be used, as far as is known."""
        return len(self._known)

    @property
    def damaged_count(self) -> int:
        """How many references of the store cannot be used."""
        return self._known.damaged_count

    def bytes_by_state(self) -> dict[str, int]:
        """The memory of all revisions that are held, see `OpenReferences`."""
        return self._open.bytes_by_state()

    @property
    def mismatched_count(self) -> int:
        """How many references this detector cannot open, as far as is known."""
        return len(self._mismatched)

    def open_ids(self) -> list[ReferenceId]:
        """The references that are open, the least recently used first."""
        return list(self._open)

    def use(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceUse:
        """The current revision, opened first if needed. It stays open until the block ends.

        Raises:
            ReferenceNotFoundError, ReferenceDamagedError, RevisionMismatchError: as for `info`.
            BankMismatchError: it was built with another backbone, other weights or another precision.
            MemoryBudgetError: the references in use leave too little memory.
            StorageUnavailableError: it cannot be read.
        """
        return ReferenceUse(partial(self._acquire, reference_id, expected_revision))

    async def _acquire(self, reference_id: ReferenceId, expected_revision: Revision | None) -> HeldReference:
        has_waited = False
        while True:
            info = self.info(reference_id, expected_revision)
            if (mismatch := self._mismatched.get(reference_id)) is not None:
                raise mismatch.copy()
            try:
                return await self._open.acquire(info)
            except PatchserveError:
                if self.find(reference_id) is not info:
                    continue  # it was replaced or deleted in the meantime
                if has_waited or not self._change.locked():
                    raise
                # A change may hold the memory, or may be about to replace this revision.
                async with self._change:
                    has_waited = True

    def info(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceInfo:
        """The description of the current revision. Never waits.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: it is stored but cannot be read.
            RevisionMismatchError: it is not the expected one.
        """
        return self._known.info(reference_id, expected_revision)

    def find(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        """The description of the current revision; None if there is none."""
        return self._known.find(reference_id)

    def page(self, after_id: str, size: int) -> tuple[list[ReferenceInfo], bool]:
        """Up to `size` references with greater ids, in order, and whether more follow."""
        return self._known.page(after_id, size)

    async def publish(
        self, reference: Reference, scorer: Scorer, *, replaces: ReferenceInfo | None = None
    ) -> ReferenceInfo:
        """Saves a revision, then serves it. The old revision serves until the new one is saved, and is then kept.

        Raises:
            ReferenceChangedError: `replaces` is no longer the current revision.
            MemoryBudgetError, StorageFullError, StorageUnavailableError: the old revision stays.
        """
        # A save continues even if its caller leaves, so that store and memory agree.
        return await self._finish(self._publish(reference, scorer, replaces))

    async def _publish(self, reference: Reference, scorer: Scorer, replaces: ReferenceInfo | None) -> ReferenceInfo:
        reference_id, info = reference.reference_id, reference.info
        async with self._change:
            if replaces is not None and self.find(reference_id) != replaces:
                raise ReferenceChangedError(reference_id)
            with self._open.room_for(info, scorer):
                kept = await asyncio.get_running_loop().run_in_executor(self._storage, self._store.save, reference)
                self._serve(info, scorer, kept)
            return self._changed(reference_id, kept)

    def _serve(self, info: ReferenceInfo, scorer: Scorer, kept: KeptRevision | None) -> None:
        info = replace(info, previous_revision=None if kept is None else kept.revision)
        self._mismatched.pop(info.reference_id, None)
        self._known.set(info.reference_id, info)
        self._open.add(OpenReference(info, scorer))

    def _changed(self, reference_id: ReferenceId, kept: KeptRevision | None) -> ReferenceInfo:
        """Counts the memory of the previous revision, which is the first to go, and tells the listeners."""
        self._open.keep(reference_id, 0 if kept is None else kept.nbytes)
        info = self._known.info(reference_id)
        self._notify(reference_id, info)
        return info

    async def history(self, reference_id: ReferenceId) -> list[ReferenceInfo]:
        """The revisions that are kept, as `history_of`."""
        return await history_of(reference_id, self._known, self._store, self._opening)

    async def tune(
        self, reference_id: ReferenceId, sensitivity: float, expected_revision: Revision | None = None
    ) -> ReferenceInfo:
        """Saves and serves the current revision with another sensitivity. Bank and scorer stay the same.

        Raises:
            InvalidInputError: the sensitivity is out of its range.
            ReferenceChangedError: another call changed the reference in the meantime.
            The errors of `use` and `publish`.
        """
        check_sensitivity(sensitivity)
        async with self.use(reference_id, expected_revision) as opened:
            revision = await asyncio.get_running_loop().run_in_executor(self._opening, tuned, opened, sensitivity)
            return await self.publish(revision, opened.scorer, replaces=opened.info)

    async def restore(
        self, reference_id: ReferenceId, revision: Revision | None = None, expected_revision: Revision | None = None
    ) -> ReferenceInfo:
        """Serves the previous revision again, and keeps the current one in its place.

        Args:
            reference_id: the reference. It may be damaged.
            revision: the revision to restore; None: the previous one. With the current one, nothing changes.
            expected_revision: the revision to go back from; None: any.

        Raises:
            ReferenceNotFoundError, RevisionMismatchError: as for `info`.
            RevisionNotKeptError: it is not the previous revision, or there is none.
            ReferenceDamagedError, BankMismatchError: the previous revision cannot be used.
            ReferenceChangedError: another call changed the reference in the meantime.
            MemoryBudgetError, StorageFullError, StorageUnavailableError: the current revision stays.
        """
        is_damaged = self._known.is_damaged(reference_id) and expected_revision is None
        current = None if is_damaged else self.info(reference_id, expected_revision)
        if current is not None:
            if revision == current.revision:
                return current
            kept = current.previous_revision
            if kept is None or revision not in (None, kept):
                raise RevisionNotKeptError(reference_id, revision, kept)
        return await self._finish(self._restore(reference_id, revision, current))

    async def _restore(
        self, reference_id: ReferenceId, revision: Revision | None, current: ReferenceInfo | None
    ) -> ReferenceInfo:
        loop = asyncio.get_running_loop()
        previous = await loop.run_in_executor(self._opening, self._store.load_previous, reference_id)
        if revision not in (None, previous.revision):
            raise RevisionNotKeptError(reference_id, revision, previous.revision)
        info, opened, scorer = previous.info, self._open.find(reference_id), None
        if opened is not None and await loop.run_in_executor(self._opening, can_score, opened.scorer, previous):
            scorer = opened.scorer
        async with self._change:
            if self.find(reference_id) != current:
                raise ReferenceChangedError(reference_id)
            with self._open.room_for(info, scorer):
                if scorer is None:
                    scorer = await self._open_model(info, previous.model)
                kept = await loop.run_in_executor(self._storage, self._store.restore, reference_id, info.revision)
                self._serve(info, scorer, kept)
            return self._changed(reference_id, kept)

    def _forget_previous(self, reference_id: ReferenceId) -> None:
        """Forgets a previous revision whose memory is needed."""
        self._store.forget_previous(reference_id)
        self._known.set(reference_id, replace(self._known.info(reference_id), previous_revision=None))

    async def delete(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> str:
        """Removes a reference from store and memory; returns the revision that it had ("" for a damaged one).

        Raises:
            ReferenceNotFoundError, RevisionMismatchError: as for `info`.
            StorageFullError, StorageUnavailableError: the reference stays.
        """
        return await self._finish(self._delete(reference_id, expected_revision))

    async def _delete(self, reference_id: ReferenceId, expected_revision: Revision | None) -> str:
        async with self._change:
            is_damaged = self._known.is_damaged(reference_id) and expected_revision is None
            revision = "" if is_damaged else self.info(reference_id, expected_revision).revision
            with suppress(ReferenceNotFoundError):  # somebody removed its files, but it still answers
                await asyncio.get_running_loop().run_in_executor(self._storage, self._store.delete, reference_id)
            self._mismatched.pop(reference_id, None)
            self._known.set(reference_id, None)
            self._open.retire(reference_id)
            self._notify(reference_id, None)
            return revision

    async def _finish(self, change: Coroutine[Any, Any, T]) -> T:
        """Awaits a change. The change continues even if its caller leaves."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        task.add_done_callback(retrieve_error)
        try:
            result = await asyncio.shield(task)
            if self._everybody_knows is not None:
                await self._everybody_knows()
            return result
        finally:
            del task  # its error has a traceback that refers to this frame: a cycle

    def listen(self, reference_id: ReferenceId, listener: Listener) -> AbstractContextManager[None]:
        """Calls the listener at every change of this reference until the block ends."""
        return self._listeners.listen(reference_id, listener)

    def _notify(self, reference_id: ReferenceId, info: ReferenceInfo | None) -> None:
        self._listeners.notify(reference_id, info)
        self._events.reference_changed(reference_id, info)

    async def _load_and_open(self, info: ReferenceInfo) -> Scorer:
        with told(lambda *how: self._events.reference_opened(ReferenceOpened(info.reference_id, *how))):
            return await self._read_and_open(info)

    async def _read_and_open(self, info: ReferenceInfo) -> Scorer:
        reference_id = info.reference_id
        try:
            reference = await asyncio.get_running_loop().run_in_executor(self._opening, self._store.load, reference_id)
        except (ReferenceNotFoundError, ReferenceDamagedError) as error:
            if self.find(reference_id) is info:
                _log.error("Reference %r is no longer usable: %s", str(reference_id), error.message)
                self._known.set(reference_id, error)
            raise
        if reference.revision != info.revision:
            raise ReferenceChangedError(reference_id)
        scorer = await self._open_model(info, reference.model)
        _log.info("Opened reference %r", str(reference_id))
        return scorer

    async def _open_model(self, info: ReferenceInfo, model: ReferenceModel) -> Scorer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._opening, self._detector.open, model)
        except BankMismatchError as error:
            if self.find(info.reference_id) is info:
                self._mismatched[info.reference_id] = error.for_reference(info.reference_id)
            # Without a local variable and without a cause: a reference cycle would keep the bank in memory.
            raise error.for_reference(info.reference_id) from None
