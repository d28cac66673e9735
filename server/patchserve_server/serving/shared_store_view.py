"""What is current in a store that several servers change, as far as this one knows."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from patchserve_server.domain.errors import (
    PatchserveError,
    QueueFullError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    StorageUnavailableError,
    TemporaryError,
)
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.shared_references import SharedReferences
from patchserve_server.domain.store_status import StoreStatus
from patchserve_server.serving.allowance import Allowance
from patchserve_server.serving.known_references import Known, KnownReferences
from patchserve_server.serving.log_interval import LogInterval
from patchserve_server.serving.single_flight import SingleFlight

MAX_DESCRIBED: Final = 4096
_LOOK_UPS_PER_S: Final = 50.0  # of what is not known here
_LOOK_UPS_AT_ONCE: Final = 200
_LISTED_AT_ONCE: Final = 4  # look-ups for pages, of all callers: those that are urgent get the other threads
_DAMAGED_S: Final = 10.0  # until a damaged reference is read again
_RETRY_AFTER_S: Final = 2.0
_LOG_INTERVAL_S: Final = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a catalog needs to share its store with other servers.

    Args:
        url: of the store, without anything secret.
        references: the store, as several servers use it.
        polling: a thread that polls it.
        looking_up: threads that look up single references.
    """

    url: str
    references: SharedReferences
    polling: Executor
    looking_up: Executor


class _Reading:
    """A look at the store that has begun: what changes here meanwhile may be newer than what it sees."""

    def __init__(self) -> None:
        self.touched: set[ReferenceId] = set()


class SharedStoreView:
    """Implements `StoreView`. Of all references their revisions are known, as the last poll has told them.

    A reference is described when it is asked for first. From then on the description is kept in step: if a poll tells
    a change, the reference is looked up, because what a poll tells may be older than what was looked up before.
    A name that is not known, or a revision that is expected and not known, is looked up at once, up to a limit.

    Args:
        sharing: the store and the threads that ask it.
        known: gets the descriptions.
        is_held: whether a reference is in use here, so that its changes must be told.
        changed: called when another server has deleted a reference, or has changed one that was described here, or is
            held.
        everybody_knows: returns when all who have a copy of `known` have that of now.
        max_described: how many descriptions are kept, beside those of references that are held.
    """

    def __init__(
        self,
        sharing: Sharing,
        known: KnownReferences,
        *,
        is_held: Callable[[ReferenceId], bool],
        changed: Callable[[ReferenceId, ReferenceInfo | None], None],
        everybody_knows: Callable[[], Awaitable[None]] | None = None,
        max_described: int = MAX_DESCRIBED,
    ) -> None:
        self._is_reachable = True  # at the last poll
        self._sharing = sharing
        self._known = known
        self._is_held = is_held
        self._changed = changed
        self._everybody_knows = everybody_knows
        self._max_described = max_described
        self._revisions: dict[ReferenceId, Revision] = {}
        self._ordered: list[ReferenceId] | None = None  # the ids of all revisions; None: they have changed
        self._unsure: set[ReferenceId] = set()  # to be looked up after the next poll
        self._readings: set[_Reading] = set()
        self._look_ups = SingleFlight(self._look_up)
        self._name_limit = Allowance(_LOOK_UPS_PER_S, _LOOK_UPS_AT_ONCE)
        self._revision_limit = Allowance(_LOOK_UPS_PER_S, _LOOK_UPS_AT_ONCE)
        self._listing = asyncio.Semaphore(_LISTED_AT_ONCE)
        self._refusals = LogInterval(_LOG_INTERVAL_S)

    @property
    def usable_count(self) -> int:
        return max(0, len(self._revisions) - self._known.damaged_count)

    @property
    def damaged_count(self) -> int:
        return self._known.damaged_count

    def find(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        return self._known.find(reference_id)

    def damage_of(self, reference_id: ReferenceId) -> PatchserveError | None:
        return self._known.damage_of(reference_id)

    def has(self, reference_id: ReferenceId) -> bool:
        return reference_id in self._revisions

    def is_current(self, info: ReferenceInfo) -> bool:
        return self._revisions.get(info.reference_id) == info.revision

    def base_of(self, info: ReferenceInfo | None) -> Revision | None:
        return None if info is None else info.revision

    def status(self) -> StoreStatus:
        return StoreStatus(
            kind=self._sharing.url.partition("://")[0],
            url=self._sharing.url,
            is_shared=True,
            synced_age_s=self._sharing.references.synced_age_s(),
            is_reachable=self._is_reachable,
        )

    def check_reachable(self) -> None:
        if not self._is_reachable:
            message = (
                "The store of references cannot be reached now, so only references that are open here, or whose copies "
                "this server has, are served."
            )
            raise StorageUnavailableError(message, retry_after_s=_RETRY_AFTER_S)

    async def info(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceInfo:
        info = self._known.find(reference_id)
        if info is None or expected_revision not in (None, info.revision):
            is_known = info is None and reference_id in self._revisions
            if is_known or self._may_look_up(expected_revision):
                info = await self._described(reference_id)
        if info is None:
            raise ReferenceNotFoundError(reference_id)
        if expected_revision not in (None, info.revision):
            raise RevisionMismatchError(reference_id, expected_revision or "", info.revision)
        return info

    def _may_look_up(self, expected_revision: Revision | None) -> bool:
        """Whether something that is not known here may be looked up now. If not, the last poll has the answer.

        Raises:
            QueueFullError: a revision is expected, so that what the last poll has told is no answer.
            StorageUnavailableError: as for `check_reachable`.
        """
        self.check_reachable()
        if (self._name_limit if expected_revision is None else self._revision_limit).take():
            return True
        if (refused := self._refusals.count()) is not None:
            _log.warning("Callers ask for too much that is not known here; %d were not looked up", refused[0])
        if expected_revision is not None:
            raise QueueFullError("Too many revisions are looked up in the store; try again shortly.", 1.0)
        return False

    async def _described(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        if (damage := self._known.damage_of(reference_id)) is not None:
            raise damage.copy()
        self.check_reachable()
        return await self._look_ups.result(reference_id)

    async def page(self, after_id: str, size: int) -> tuple[list[ReferenceInfo], bool]:
        found: list[ReferenceInfo] = []
        while len(found) < size and (ids := self._ids_after(after_id, size - len(found))):
            after_id = ids[-1]
            found += [info for info in await asyncio.gather(*map(self._listed, ids)) if info is not None]
        return found, bool(self._ids_after(after_id, 1))

    def _ids_after(self, after_id: str, count: int) -> list[ReferenceId]:
        if self._ordered is None:
            self._ordered = sorted(self._revisions)
        start = bisect_right(self._ordered, after_id)
        return self._ordered[start : start + count]

    async def _listed(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        """The description, unless the reference was deleted meanwhile, or is damaged."""
        if (info := self._known.find(reference_id)) is not None:
            return info
        try:
            async with self._listing:
                return self._known.find(reference_id) or await self._described(reference_id)
        except ReferenceDamagedError:
            return None

    def set(self, reference_id: ReferenceId, info: ReferenceInfo | None) -> bool:
        before = self._known.find(reference_id)
        self._learn(reference_id, info, is_news=True)
        # Another server may have made a newer change since the commit, and a poll may have told it already.
        self._unsure.add(reference_id)
        # It is known already if it was looked up between its commit and now.
        return info is None or before is None or _identity(before) != _identity(info)

    async def learn_unusable(self, reference_id: ReferenceId, error: PatchserveError) -> None:
        if isinstance(error, ReferenceNotFoundError):
            await self.check(reference_id)
        else:
            self._learn(reference_id, error, is_news=False)

    def doubt(self, reference_id: ReferenceId) -> None:
        self._unsure.add(reference_id)

    async def check(self, reference_id: ReferenceId) -> None:
        try:
            await self._look_ups.result(reference_id)
        except TemporaryError:
            self._unsure.add(reference_id)
        except PatchserveError as error:
            _log.warning("Reference %r cannot be used: %s", str(reference_id), error.message)
        except Exception:  # a bug: what is known may be old, so the next poll asks again
            self._unsure.add(reference_id)
            raise

    async def poll(self) -> None:
        """Learns what other servers have changed.

        Raises:
            StorageUnavailableError: the store cannot be reached.
        """
        loop = asyncio.get_running_loop()
        try:
            with self._reading() as reading:
                changes = await loop.run_in_executor(self._sharing.polling, self._sharing.references.poll)
        except PatchserveError:
            self._is_reachable = False
            raise
        self._is_reachable = True
        self._take(changes, reading)
        unsure, self._unsure = self._unsure, set()
        await asyncio.gather(*map(self.check, unsure))

    def _take(self, changes: Mapping[ReferenceId, Revision | None], reading: _Reading) -> None:
        for reference_id, revision in changes.items():
            is_described = self._known.find(reference_id) is not None
            if is_described or reference_id in reading.touched or self._is_held(reference_id):
                self._unsure.add(reference_id)
                continue
            is_deleted = revision is None and reference_id in self._revisions
            self._know(reference_id, revision)
            if is_deleted or self._known.damage_of(reference_id) is not None:
                self._known.set(reference_id, None, is_news=is_deleted)
            if is_deleted:  # those who count by reference want to know
                self._changed(reference_id, None)

    @contextmanager
    def _reading(self) -> Iterator[_Reading]:
        reading = _Reading()
        self._readings.add(reading)
        try:
            yield reading
        finally:
            self._readings.discard(reading)

    async def _look_up(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        while True:
            with self._reading() as reading:
                found = await self._read(reference_id)
            if reference_id not in reading.touched:
                break
        if self._learn(reference_id, found, is_news=False) and self._everybody_knows is not None:
            await self._everybody_knows()
        if isinstance(found, PatchserveError):
            raise found
        return found

    async def _read(self, reference_id: ReferenceId) -> Known:
        look_up = self._sharing.references.look_up
        try:
            return await asyncio.get_running_loop().run_in_executor(self._sharing.looking_up, look_up, reference_id)
        except ReferenceDamagedError as error:
            return error.copy()

    def _learn(self, reference_id: ReferenceId, known: Known, *, is_news: bool) -> bool:
        """Knows this from now on. Returns whether another server had changed it; `is_news`: this one has."""
        for reading in self._readings:
            reading.touched.add(reference_id)
        before, described = self._revisions.get(reference_id), self._known.find(reference_id)
        if isinstance(known, PatchserveError):
            self._known.set(reference_id, known, is_news=is_news)
            self._forget_damage_later(reference_id)
            return False
        after = None if known is None else known.revision
        is_other = before != after or (described is not None and known != described)
        self._know(reference_id, after)
        self._known.set(reference_id, known, is_news=is_news or is_other)
        if is_other and not is_news:
            self._changed(reference_id, known)
        self._forget_some()
        return is_other and not is_news

    def _know(self, reference_id: ReferenceId, revision: Revision | None) -> None:
        if (self._revisions.get(reference_id) is None) != (revision is None):
            self._ordered = None
        if revision is None:
            self._revisions.pop(reference_id, None)
        else:
            self._revisions[reference_id] = revision

    def _forget_some(self) -> None:
        """Forgets the oldest descriptions of references that nobody uses."""
        excess = len(self._known) - self._max_described
        if excess > 0:
            idle = (reference_id for reference_id, _ in self._known if not self._is_held(reference_id))
            for reference_id in list(islice(idle, excess)):
                self._known.set(reference_id, None, is_news=False)

    def _forget_damage_later(self, reference_id: ReferenceId) -> None:
        damage = self._known.damage_of(reference_id)

        def forget() -> None:
            if self._known.damage_of(reference_id) is damage:
                self._known.set(reference_id, None, is_news=False)

        asyncio.get_running_loop().call_later(_DAMAGED_S, forget)


def _identity(info: ReferenceInfo) -> tuple[Revision, datetime]:
    return info.revision, info.update_time
