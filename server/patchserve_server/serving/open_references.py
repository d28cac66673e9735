"""The open references: their scorers, within a memory limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from patchserve_server.domain.errors import MemoryBudgetError, PatchserveError
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.reference_use import HeldReference, OpenReference, ReferenceUse


@dataclass(slots=True, eq=False)
class _Entry:
    """A revision that is open or being opened."""

    reference_id: ReferenceId
    opening: asyncio.Future[OpenReference]
    nbytes: int
    users: int = 0

    @property
    def is_idle(self) -> bool:
        return not self.users and self.opening.done()

    @property
    def is_open(self) -> bool:
        return self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None

    @property
    def memory(self) -> object:
        """What the bytes belong to: the scorer if it is open. Revisions that differ in sensitivity only share one."""
        return self.opening.result().scorer if self.is_open else self


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    reference: OpenReference
    references: OpenReferences
    entry: _Entry

    def release(self) -> None:
        self.references.leave(self.entry)


class OpenReferences:
    """Owns the scorers. Together they use at most `max_bytes`, including those that are being opened.

    If a closed reference can be opened again, the least recently used ones are closed to free memory. One that is in
    use is never closed. A revision that was replaced or deleted stays open, and counts, until its last user has left.
    Only the revision that replaces it may exceed the limit meanwhile, so that a reference in use can be replaced. A
    scorer that several revisions share counts once. Previous revisions that a store keeps in memory count too. They are
    the first to go.

    Args:
        open_reference: opens a revision. Called once for all who wait for it; openings do not wait for each other.
        nbytes_of: the memory that an open revision uses.
        shared_nbytes_of: the memory that it shares with all others. The largest that was needed so far counts, once.
        forget_previous: frees the memory of a reference's previous revision.
        max_bytes: the limit.
        may_close: whether a closed reference can be opened again.
    """

    def __init__(
        self,
        open_reference: Callable[[ReferenceInfo], Awaitable[Scorer]],
        nbytes_of: Callable[[ReferenceInfo], int],
        shared_nbytes_of: Callable[[ReferenceInfo], int],
        forget_previous: Callable[[ReferenceId], None],
        *,
        max_bytes: int,
        may_close: bool,
    ) -> None:
        self._open_reference = open_reference
        self._nbytes_of = nbytes_of
        self._shared_nbytes_of = shared_nbytes_of
        self._forget_previous = forget_previous
        self._max_bytes = max_bytes
        self._may_close = may_close
        self._current: dict[ReferenceId, _Entry] = {}  # the least recently used first
        self._retired: set[_Entry] = set()  # replaced or deleted, but not idle yet
        self._previous: dict[ReferenceId, int] = {}  # bytes of previous revisions in memory, the oldest first
        self._reserved = 0  # bytes
        self._shared = 0  # bytes

    def __iter__(self) -> Iterator[ReferenceId]:
        """The references that are open or being opened, the least recently used first."""
        return iter(list(self._current))

    def __contains__(self, reference_id: ReferenceId) -> bool:
        """Whether it is open or being opened."""
        return reference_id in self._current

    def use(self, info: ReferenceInfo) -> ReferenceUse:
        """The current revision of a reference, opened first if needed. It stays open until the block ends.

        Raises:
            MemoryBudgetError: the references in use leave too little memory.
            PatchserveError: it cannot be opened.
        """
        return ReferenceUse(partial(self.acquire, info))

    async def acquire(self, info: ReferenceInfo) -> HeldReference:
        """The same for a caller that releases it itself.

        Raises:
            The errors of `use`.
        """
        entry = self._current.pop(info.reference_id, None) or self._begin_to_open(info)
        self._current[info.reference_id] = entry  # the most recently used one comes last
        entry.users += 1
        try:
            if not entry.opening.done():
                await asyncio.shield(entry.opening)  # the others still wait for it if this user leaves
            return _Held(entry.opening.result(), self, entry)
        except BaseException:
            self.leave(entry)
            raise
        finally:
            del entry  # its error may have a traceback that refers to this frame: a cycle

    def leave(self, entry: _Entry) -> None:
        """One user of this revision has left."""
        entry.users -= 1
        self._release(entry)

    def find(self, reference_id: ReferenceId) -> OpenReference | None:
        """The current revision, if it is open."""
        entry = self._current.get(reference_id)
        return entry.opening.result() if entry is not None and entry.is_open else None

    def has_room_for(self, info: ReferenceInfo) -> bool:
        """Whether the reference fits without closing another one."""
        return self._excess(info) <= 0

    @contextmanager
    def room_for(self, info: ReferenceInfo, scorer: Scorer | None) -> Iterator[None]:
        """Reserves memory for another revision, which replaces the current one of its id, until the block ends.

        If the scorer is that of the current revision, its memory counts already, and it is in use until the block ends.
        None: it is not open yet.

        Raises:
            MemoryBudgetError: there is too little, even with all idle references closed. None is closed then.
        """
        current = self._current.get(info.reference_id)
        if current is not None and scorer is not None and current.memory is scorer:
            with self._used(current):
                yield
            return
        self._make_room(info)
        nbytes = self._nbytes_of(info)
        self._reserved += nbytes
        try:
            yield
        finally:
            self._reserved -= nbytes

    @contextmanager
    def _used(self, entry: _Entry) -> Iterator[None]:
        entry.users += 1
        try:
            yield
        finally:
            self.leave(entry)

    def add(self, opened: OpenReference) -> None:
        """Makes a revision that is already open the current one of its id."""
        self._share(opened.info)
        self.retire(opened.info.reference_id)
        opening: asyncio.Future[OpenReference] = asyncio.get_running_loop().create_future()
        opening.set_result(opened)
        self._current[opened.info.reference_id] = _Entry(opened.info.reference_id, opening, opened.scorer.nbytes)

    def keep(self, reference_id: ReferenceId, nbytes: int) -> None:
        """Counts the memory of a previous revision. Forgets previous ones, the oldest first, if it is too much."""
        self._previous.pop(reference_id, None)
        if nbytes:
            self._previous[reference_id] = nbytes
        self._forget_oldest(self._held_bytes() - self._max_bytes)

    def _forget_oldest(self, excess: int, without: ReferenceId | None = None) -> int:
        """Frees this many bytes of previous revisions, as far as there are some. Returns what is still to be freed."""
        for reference_id in [each for each in self._previous if each != without]:
            if excess > 0:
                excess -= self._previous.pop(reference_id)
                self._forget_previous(reference_id)
        return excess

    def retire(self, reference_id: ReferenceId) -> None:
        """Removes the current revision of an id, and what is kept of the previous one. Users keep it open."""
        self._previous.pop(reference_id, None)
        entry = self._current.pop(reference_id, None)
        if entry is not None and not entry.is_idle:
            self._retired.add(entry)

    def _begin_to_open(self, info: ReferenceInfo) -> _Entry:
        self._make_room(info)

        async def open_reference() -> OpenReference:
            try:
                return OpenReference(info, await self._open_reference(info))
            except PatchserveError as error:
                failure = error.copy()  # without the frames below, which hold the bank
            try:
                raise failure
            finally:
                del failure  # its traceback refers to this frame: a cycle

        opening = asyncio.create_task(open_reference())
        entry = _Entry(info.reference_id, opening, self._nbytes_of(info))
        opening.add_done_callback(lambda _: self._end_opening(entry))
        return entry

    def _end_opening(self, entry: _Entry) -> None:
        failed = entry.opening.cancelled() or entry.opening.exception() is not None
        if failed and self._current.get(entry.reference_id) is entry:
            del self._current[entry.reference_id]
        self._release(entry)

    def bytes_by_state(self) -> dict[str, int]:
        """The memory of current, retired and previous revisions, what they share, and what is reserved.

        Together, this is what the limit holds. Any thread may ask.
        """
        current = {id(entry.memory): entry.nbytes for entry in list(self._current.values())}
        retired = {id(entry.memory): entry.nbytes for entry in list(self._retired)}
        return {
            "open": sum(current.values()),
            "retired": sum(nbytes for memory, nbytes in retired.items() if memory not in current),
            "previous": sum(list(self._previous.values())),
            "shared": self._shared,
            "reserved": self._reserved,
        }

    def _release(self, entry: _Entry) -> None:
        if entry.is_idle:
            self._retired.discard(entry)

    def _make_room(self, info: ReferenceInfo) -> None:
        kept = {id(entry.memory) for entry in self._retired}
        idle = [
            entry
            for entry in self._others(info.reference_id)
            if self._may_close and entry.is_idle and id(entry.memory) not in kept
        ]
        excess = self._excess(info)
        closable_bytes = sum(entry.nbytes for entry in idle) + self._previous_bytes(info.reference_id)
        if excess > closable_bytes:
            needed_bytes = self._max_bytes + excess - closable_bytes
            message = (
                f"With this reference, the open references would use {needed_bytes / 2**20:.0f} MiB; the server allows "
                f"{self._max_bytes / 2**20:.0f} MiB. Delete a reference, load fewer images, use a coreset or a smaller "
                "input."
            )
            raise MemoryBudgetError(message)
        self._share(info)
        excess = self._forget_oldest(excess, without=info.reference_id)
        for entry in idle:
            if excess <= 0:
                return
            del self._current[entry.reference_id]
            excess -= entry.nbytes

    def _share(self, info: ReferenceInfo) -> None:
        self._shared = max(self._shared, self._shared_nbytes_of(info))

    def _excess(self, info: ReferenceInfo) -> int:
        """How many bytes over the limit this revision would be, in place of the current one of its id."""
        further_shared = max(0, self._shared_nbytes_of(info) - self._shared)
        return self._held_bytes(info.reference_id) + self._nbytes_of(info) + further_shared - self._max_bytes

    def _held_bytes(self, without: ReferenceId | None = None) -> int:
        """All bytes, with the shared ones, but those of the current and the previous revision of this id."""
        scorers = {id(entry.memory): entry.nbytes for entry in (*self._others(without), *self._retired)}
        return sum(scorers.values()) + self._previous_bytes(without) + self._reserved + self._shared

    def _previous_bytes(self, without: ReferenceId | None) -> int:
        return sum(nbytes for reference_id, nbytes in self._previous.items() if reference_id != without)

    def _others(self, reference_id: ReferenceId | None) -> list[_Entry]:
        return [entry for entry in self._current.values() if entry.reference_id != reference_id]
