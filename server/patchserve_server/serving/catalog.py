"""The catalog: all references of the server and their changes, backed by a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from patchserve_server.domain.errors import (
    BankMismatchError,
    PatchserveError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
)
from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.domain.ports import Detector, ReferenceStore, Scorer
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.sensitivity import check_sensitivity
from patchserve_server.domain.store_status import FOLDER, MEMORY, StoreStatus
from patchserve_server.serving.known_references import KnownReferences, Listener, Listeners
from patchserve_server.serving.open_references import OpenReferences
from patchserve_server.serving.reference_changes import ReferenceChanges
from patchserve_server.serving.reference_history import history_of
from patchserve_server.serving.reference_opening import ReferenceOpener
from patchserve_server.serving.reference_use import HeldReference, OpenReference, ReferenceUse
from patchserve_server.serving.shared_scorer import tuned
from patchserve_server.serving.shared_store_view import SharedStoreView, Sharing
from patchserve_server.serving.store_view import OwnStoreView, StoreView

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
        known: gets the descriptions of all references; with a shared store, of those that were asked for.
        everybody_knows: returns when all who have a copy of them know of every change.
        sharing: how the store is shared with other servers; None: it is not.
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
        sharing: Sharing | None = None,
    ) -> None:
        self._store = store
        self._opening = opening
        self._events = events
        self._known = KnownReferences() if known is None else known
        self._listeners = Listeners()
        self.shared = None if sharing is None else self._shared_view(sharing, everybody_knows)
        self._view: StoreView = self.shared or OwnStoreView(self._known, FOLDER if store.is_durable else MEMORY)
        shared = None if sharing is None else sharing.references
        self._opener = ReferenceOpener(store, self._view, detector, opening, events, shared=shared)
        self._open = OpenReferences(
            self._opener.open,
            detector.open_nbytes,
            lambda info: detector.shared_nbytes(info.input_shape, info.options),
            self._forget_previous,
            max_bytes=max_bytes,
            may_close=store.is_durable,
        )
        self._changes = ReferenceChanges(
            store,
            self._view,
            self._open,
            self._opener,
            storage=storage,
            opening=opening,
            notify=self._notify,
            everybody_knows=everybody_knows,
        )

    def _shared_view(self, sharing: Sharing, everybody_knows: Callable[[], Awaitable[None]] | None) -> SharedStoreView:
        return SharedStoreView(
            sharing,
            self._known,
            is_held=lambda reference_id: reference_id in self._open or reference_id in self._listeners,
            changed=self._changed_elsewhere,
            everybody_knows=everybody_knows,
        )

    async def load_all(self) -> None:
        """Reads every stored reference and opens as many as fit in memory. Logs each one that cannot be used.

        For a store that no other server changes: with a shared one, references are described when they are asked for,
        and opened when they are used.
        """
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
                    self._open.add(OpenReference(info, await self._opener.open_model(info, reference.model)))
                except BankMismatchError as error:
                    _log.warning("Reference %r: %s", str(reference_id), error.message)
                except Exception:  # noqa: BLE001 - one reference must not stop the server
                    _log.exception("Reference %r cannot be opened; its first request tries again", str(reference_id))

    @property
    def usable_count(self) -> int:
        """How many references can be used, as far as is known."""
        return self._view.usable_count

    @property
    def damaged_count(self) -> int:
        """How many references of the store cannot be used."""
        return self._view.damaged_count

    @property
    def store_synced_age_s(self) -> float:
        """How long ago changes by other servers were last learned; 0 if the store is not shared. Any thread may ask."""
        return self._view.status().synced_age_s

    def bytes_by_state(self) -> dict[str, int]:
        """The memory of all revisions that are held, see `OpenReferences`."""
        return self._open.bytes_by_state()

    @property
    def mismatched_count(self) -> int:
        """How many references this detector cannot open, as far as is known."""
        return len(self._opener.mismatched)

    def open_ids(self) -> list[ReferenceId]:
        """The references that are open, the least recently used first."""
        return list(self._open)

    def use(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceUse:
        """The current revision, opened first if needed. It stays open until the block ends.

        Raises:
            The errors of `info`.
            BankMismatchError: it was built with another backbone, other weights or another precision.
            MemoryBudgetError: the references in use leave too little memory.
            StorageUnavailableError: it cannot be read.
        """
        return ReferenceUse(partial(self._acquire, reference_id, expected_revision))

    async def _acquire(self, reference_id: ReferenceId, expected_revision: Revision | None) -> HeldReference:
        has_waited = False
        while True:
            info = self._known.find(reference_id)  # every call comes here: no coroutine if none is needed
            if info is None or expected_revision not in (None, info.revision):
                info = await self._view.info(reference_id, expected_revision)
            if (mismatch := self._opener.mismatched.get(reference_id)) is not None:
                raise mismatch.copy()
            try:
                return await self._open.acquire(info)
            except PatchserveError:
                if not self._view.is_current(info):
                    continue  # it was replaced or deleted in the meantime
                if has_waited or not self._changes.lock.locked():
                    raise
                # A change may hold the memory, or may be about to replace this revision.
                async with self._changes.lock:
                    has_waited = True

    async def info(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceInfo:
        """The description of the current revision. Waits for nothing unless a shared store must be asked.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: it is stored but cannot be read.
            RevisionMismatchError: it is not the expected one.
            QueueFullError, StorageUnavailableError: a shared store must be asked, and cannot.
        """
        return await self._view.info(reference_id, expected_revision)

    def find(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        """The same, of a reference that was described before; None: there is none, or it was not."""
        return self._view.find(reference_id)

    async def current(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        """The description of the current revision; None: there is none that can be read.

        Raises:
            StorageUnavailableError: a shared store must be asked, and cannot.
        """
        try:
            return await self._view.info(reference_id)
        except (ReferenceNotFoundError, ReferenceDamagedError):
            return None

    def check_reachable(self) -> None:
        """Before work whose result will be published.

        Raises:
            StorageUnavailableError: the store cannot be reached now.
        """
        self._view.check_reachable()

    async def page(self, after_id: str, size: int) -> tuple[list[ReferenceInfo], bool]:
        """Up to `size` references with greater ids, in order, and whether more may follow."""
        return await self._view.page(after_id, size)

    async def has(self, reference_id: ReferenceId) -> bool:
        """Whether there is such a reference, as far as is known: no store is asked."""
        return self._view.has(reference_id)

    async def store_status(self) -> StoreStatus:
        """How the store is."""
        return self._view.status()

    async def publish(
        self, reference: Reference, scorer: Scorer, *, replaces: ReferenceInfo | None = None
    ) -> ReferenceInfo:
        """Saves a revision, then serves it. The old revision serves until the new one is saved, and is then kept.

        Raises:
            ReferenceChangedError: `replaces` is no longer the current revision.
            MemoryBudgetError, StorageFullError, StorageUnavailableError: the old revision stays.
        """
        return await self._changes.publish(reference, scorer, replaces)

    async def history(self, reference_id: ReferenceId) -> list[ReferenceInfo]:
        """The revisions that are kept, as `history_of`."""
        return await history_of(reference_id, self._view, self._store, self._opening)

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
        return await self._changes.restore(reference_id, revision, expected_revision)

    async def delete(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> str:
        """Removes a reference from store and memory; returns the revision that it had ("" for a damaged one).

        Raises:
            ReferenceNotFoundError, RevisionMismatchError: as for `info`.
            StorageFullError, StorageUnavailableError: the reference stays.
        """
        return await self._changes.delete(reference_id, expected_revision)

    def listen(self, reference_id: ReferenceId, listener: Listener) -> AbstractContextManager[None]:
        """Calls the listener at every change of this reference until the block ends."""
        return self._listeners.listen(reference_id, listener)

    def _notify(self, reference_id: ReferenceId, info: ReferenceInfo | None) -> None:
        self._listeners.notify(reference_id, info)
        self._events.reference_changed(reference_id, info)

    def _changed_elsewhere(self, reference_id: ReferenceId, info: ReferenceInfo | None) -> None:
        """Another server has changed a reference: what is open of it serves nobody who comes from now on."""
        self._opener.mismatched.pop(reference_id, None)
        opened = self._open.find(reference_id)
        if info is not None and opened is not None and opened.info.revision == info.revision:
            self._open.add(OpenReference(info, opened.scorer))  # its description alone has changed
        else:
            self._open.retire(reference_id)
        self._notify(reference_id, info)

    def _forget_previous(self, reference_id: ReferenceId) -> None:
        """Forgets a previous revision whose memory is needed. Only a store in memory has one."""
        self._store.forget_previous(reference_id)
        self._known.set(reference_id, replace(self._known.info(reference_id), previous_revision=None))
