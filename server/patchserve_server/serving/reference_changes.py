"""The changes of references: in the store first, one at a time, and then in what is served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Final, TypeVar

from patchserve_server.domain.errors import (
    ReferenceChangedError,
    ReferenceNotFoundError,
    RevisionNotKeptError,
    StorageUnavailableError,
)
from patchserve_server.domain.ports import KeptRevision, ReferenceStore, Scorer
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.open_references import OpenReferences
from patchserve_server.serving.reference_opening import ReferenceOpener
from patchserve_server.serving.reference_use import OpenReference
from patchserve_server.serving.shared_scorer import can_score
from patchserve_server.serving.store_view import StoreView
from patchserve_server.serving.tasks import retrieve_error

T = TypeVar("T")

_MOST_TRIES: Final = 5  # of a delete, if others change the reference all the time


class ReferenceChanges:
    """Publishes, restores and deletes.

    Args:
        store: is changed.
        view: learns of every change.
        opened: the open references.
        opener: opens those that are restored.
        storage: the pool that saves and deletes.
        opening: the pool that loads and compares.
        notify: tells a change to those who listen.
        everybody_knows: returns when all who have a copy of what is known have that of now.
    """

    def __init__(
        self,
        store: ReferenceStore,
        view: StoreView,
        opened: OpenReferences,
        opener: ReferenceOpener,
        *,
        storage: Executor,
        opening: Executor,
        notify: Callable[[ReferenceId, ReferenceInfo | None], None],
        everybody_knows: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self.lock = asyncio.Lock()
        self._store = store
        self._view = view
        self._open = opened
        self._opener = opener
        self._storage = storage
        self._opening = opening
        self._notify = notify
        self._everybody_knows = everybody_knows
        self._running: set[asyncio.Task[Any]] = set()

    async def publish(self, reference: Reference, scorer: Scorer, replaces: ReferenceInfo | None) -> ReferenceInfo:
        """`Catalog.publish`."""
        return await self._finish(reference.reference_id, self._publish(reference, scorer, replaces))

    async def _publish(self, reference: Reference, scorer: Scorer, replaces: ReferenceInfo | None) -> ReferenceInfo:
        reference_id, info = reference.reference_id, reference.info
        async with self.lock:
            if replaces is not None and not self._view.is_current(replaces):
                raise ReferenceChangedError(reference_id)
            with self._open.room_for(info, scorer):
                kept = await self._stored(self._store.save, reference, self._view.base_of(replaces))
                is_news = self._serve(info, scorer, kept)
            return self._changed(info, kept, is_news=is_news)

    def _serve(self, info: ReferenceInfo, scorer: Scorer, kept: KeptRevision | None) -> bool:
        info = replace(info, previous_revision=None if kept is None else kept.revision)
        self._opener.mismatched.pop(info.reference_id, None)
        is_news = self._view.set(info.reference_id, info)
        self._open.add(OpenReference(info, scorer))
        return is_news

    def _changed(self, info: ReferenceInfo, kept: KeptRevision | None, *, is_news: bool) -> ReferenceInfo:
        """Counts the memory of the previous revision, which is the first to go, and tells the listeners."""
        self._open.keep(info.reference_id, 0 if kept is None else kept.nbytes)
        info = self._view.find(info.reference_id) or info
        if is_news:
            self._notify(info.reference_id, info)
        return info

    async def restore(
        self, reference_id: ReferenceId, revision: Revision | None, expected_revision: Revision | None
    ) -> ReferenceInfo:
        """`Catalog.restore`."""
        is_damaged = self._view.damage_of(reference_id) is not None and expected_revision is None
        current = None if is_damaged else await self._view.info(reference_id, expected_revision)
        if current is not None:
            if revision == current.revision:
                return current
            kept = current.previous_revision
            if kept is None or revision not in (None, kept):
                raise RevisionNotKeptError(reference_id, revision, kept)
        return await self._finish(reference_id, self._restore(reference_id, revision, current))

    async def _restore(
        self, reference_id: ReferenceId, revision: Revision | None, current: ReferenceInfo | None
    ) -> ReferenceInfo:
        self._view.check_reachable()
        loop = asyncio.get_running_loop()
        previous = await loop.run_in_executor(self._opening, self._store.load_previous, reference_id)
        if revision not in (None, previous.revision):
            raise RevisionNotKeptError(reference_id, revision, previous.revision)
        info, opened, scorer = previous.info, self._open.find(reference_id), None
        if opened is not None and await loop.run_in_executor(self._opening, can_score, opened.scorer, previous):
            scorer = opened.scorer
        async with self.lock:
            is_same = self._view.find(reference_id) is None if current is None else self._view.is_current(current)
            if not is_same:
                raise ReferenceChangedError(reference_id)
            with self._open.room_for(info, scorer):
                if scorer is None:
                    scorer = await self._opener.open_model(info, previous.model)
                kept = await self._stored(self._store.restore, reference_id, info.revision, self._view.base_of(current))
                is_news = self._serve(info, scorer, kept)
            return self._changed(info, kept, is_news=is_news)

    async def delete(self, reference_id: ReferenceId, expected_revision: Revision | None) -> str:
        """`Catalog.delete`."""
        return await self._finish(reference_id, self._delete(reference_id, expected_revision))

    async def _delete(self, reference_id: ReferenceId, expected_revision: Revision | None) -> str:
        async with self.lock:
            for tries_left in reversed(range(_MOST_TRIES)):
                is_damaged = self._view.damage_of(reference_id) is not None and expected_revision is None
                info = None if is_damaged else await self._view.info(reference_id, expected_revision)
                try:
                    await self._stored(self._store.delete, reference_id, self._view.base_of(info))
                    break
                except ReferenceNotFoundError:
                    await self._view.check(reference_id)
                    if not self._view.has(reference_id) and self._view.damage_of(reference_id) is None:
                        raise  # another server was faster
                    break  # somebody removed its files, but it still answers
                except ReferenceChangedError:
                    await self._view.check(reference_id)
                    if expected_revision is not None or not tries_left:
                        raise
            self._opener.mismatched.pop(reference_id, None)
            self._view.set(reference_id, None)
            self._open.retire(reference_id)
            self._notify(reference_id, None)
            return "" if info is None else info.revision

    async def _stored(self, change: Callable[..., T], *arguments: object) -> T:
        self._view.check_reachable()
        return await asyncio.get_running_loop().run_in_executor(self._storage, change, *arguments)

    async def _finish(self, reference_id: ReferenceId, change: Coroutine[Any, Any, T]) -> T:
        """Awaits a change. The change continues even if its caller leaves, so that store and memory agree."""
        task = asyncio.create_task(self._checked(reference_id, change))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(retrieve_error)
        try:
            result = await asyncio.shield(task)
            if self._everybody_knows is not None:
                await self._everybody_knows()
            return result
        finally:
            del task  # its error has a traceback that refers to this frame: a cycle

    async def _checked(self, reference_id: ReferenceId, change: Coroutine[Any, Any, T]) -> T:
        try:
            return await change
        except (ReferenceChangedError, RevisionNotKeptError):
            await self._view.check(reference_id)  # another server may have changed it
            raise
        except StorageUnavailableError:
            self._view.doubt(reference_id)
            raise
