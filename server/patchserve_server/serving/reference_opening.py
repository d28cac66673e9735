"""Opens stored references, and remembers which ones this detector cannot open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from patchserve_server.domain.errors import (
    BankMismatchError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    StorageUnavailableError,
)
from patchserve_server.domain.events import Events
from patchserve_server.domain.ports import Detector, ReferenceStore, Scorer
from patchserve_server.domain.reference import Reference, ReferenceInfo, ReferenceModel
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.shared_references import SharedReferences
from patchserve_server.domain.work_events import ReferenceOpened, told
from patchserve_server.serving.store_view import StoreView

A = TypeVar("A")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class ReferenceOpener:
    """Reads references and opens them, on a pool.

    Args:
        store: has them.
        view: learns what it finds out.
        detector: opens them.
        executor: the pool.
        events: hears of every opening.
        shared: the store, if other servers use it too.
    """

    def __init__(
        self,
        store: ReferenceStore,
        view: StoreView,
        detector: Detector,
        executor: Executor,
        events: Events,
        *,
        shared: SharedReferences | None,
    ) -> None:
        self.mismatched: dict[ReferenceId, BankMismatchError] = {}  # readable, but this detector cannot open it
        self._store = store
        self._view = view
        self._detector = detector
        self._executor = executor
        self._events = events
        self._shared = shared

    async def open(self, info: ReferenceInfo) -> Scorer:
        """Reads and opens a revision.

        Raises:
            ReferenceChangedError: another one is stored now.
            StorageUnavailableError: a shared store is away, and there is no copy here.
            The errors of ReferenceStore.load and Detector.open.
        """
        with told(lambda *how: self._events.reference_opened(ReferenceOpened(info.reference_id, *how))):
            return await self._open(info)

    async def _open(self, info: ReferenceInfo) -> Scorer:
        reference = await self._read(info)
        scorer = await self.open_model(info, reference.model)
        _log.info("Opened reference %r", str(info.reference_id))
        return scorer

    async def _read(self, info: ReferenceInfo) -> Reference:
        """The revision, as it is stored; while a shared store is away, as this server has copied it."""
        try:
            self._view.check_reachable()
            return await self._load(info)
        except StorageUnavailableError:
            if self._shared is None or not self._view.is_current(info):
                raise
            copied = await self._run(self._shared.load_copy, info)
            if copied is None:
                raise
            self._view.doubt(info.reference_id)  # another server may have changed it, and the index be behind
            _log.info("Reference %r is read from its copy, because the store is away", str(info.reference_id))
            return copied

    async def _load(self, info: ReferenceInfo) -> Reference:
        reference_id = info.reference_id
        try:
            reference = await self._run(self._store.load, reference_id)
        except (ReferenceNotFoundError, ReferenceDamagedError) as error:
            if self._view.is_current(info):
                _log.error("Reference %r is no longer usable: %s", str(reference_id), error.message)
                await self._view.learn_unusable(reference_id, error)
            raise
        if reference.revision != info.revision:
            if self._view.is_current(info):
                await self._view.check(reference_id)
            raise ReferenceChangedError(reference_id)
        return reference

    async def _run(self, work: Callable[[A], R], argument: A) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, argument)

    async def open_model(self, info: ReferenceInfo, model: ReferenceModel) -> Scorer:
        """Opens the model of a revision.

        Raises:
            BankMismatchError: it was built with another backbone, other weights or another precision.
        """
        try:
            return await self._run(self._detector.open, model)
        except BankMismatchError as error:
            if self._view.is_current(info):
                self.mismatched[info.reference_id] = error.for_reference(info.reference_id)
            # Without a local variable and without a cause: a reference cycle would keep the bank in memory.
            raise error.for_reference(info.reference_id) from None
