"""What is known of references: the description of each, or why it cannot be used."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from patchserve_server.domain.errors import PatchserveError, ReferenceNotFoundError, RevisionMismatchError
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision

Known = ReferenceInfo | PatchserveError | None
"""What is known of a reference: its description, why it cannot be read, or None: nothing."""

Listener = Callable[[ReferenceInfo | None], None]
"""Called on the event loop with the new revision of a reference, or None when the reference was deleted."""


def _nobody(_id: ReferenceId, _known: Known, _is_news: bool) -> None:
    pass


class KnownReferences:
    """The descriptions of references by id.

    Args:
        changed: called after each change with what is known from now on, and whether that is news: the reference itself
            has changed. It has not if its description was only read, or is forgotten.
    """

    def __init__(self, changed: Callable[[ReferenceId, Known, bool], None] = _nobody) -> None:
        self._known: dict[ReferenceId, ReferenceInfo] = {}
        self._damaged: dict[ReferenceId, PatchserveError] = {}  # stored, but cannot be read
        self._ordered: list[ReferenceId] | None = None  # the ids that can be used; None: they have changed
        self._changed = changed

    def __len__(self) -> int:
        """How many can be used, as far as is known."""
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[ReferenceId, Known]]:
        yield from self._known.items()
        yield from self._damaged.items()

    @property
    def damaged_count(self) -> int:
        return len(self._damaged)

    def damage_of(self, reference_id: ReferenceId) -> PatchserveError | None:
        """Why the reference cannot be read; None: it can, as far as is known."""
        return self._damaged.get(reference_id)

    def set(self, reference_id: ReferenceId, known: Known, *, is_news: bool = True) -> None:
        """Knows this from now on."""
        if self._known.pop(reference_id, None) is None or not isinstance(known, ReferenceInfo):
            self._ordered = None
        self._damaged.pop(reference_id, None)
        if isinstance(known, ReferenceInfo):
            self._known[reference_id] = known
        elif known is not None:
            self._damaged[reference_id] = known.copy()
        self._changed(reference_id, known, is_news)

    def info(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceInfo:
        """The description of the current revision.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: it is stored but cannot be read.
            RevisionMismatchError: it is not the expected one.
        """
        info = self._known.get(reference_id)
        if info is None:
            damaged = self._damaged.get(reference_id)
            raise ReferenceNotFoundError(reference_id) if damaged is None else damaged.copy()
        if expected_revision is not None and info.revision != expected_revision:
            raise RevisionMismatchError(reference_id, expected_revision, info.revision)
        return info

    def find(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        """The description of the current revision; None if there is none."""
        return self._known.get(reference_id)

    def page(self, after_id: str, size: int) -> tuple[list[ReferenceInfo], bool]:
        """Up to `size` references with greater ids, in order, and whether more follow."""
        if self._ordered is None:
            self._ordered = sorted(self._known)
        start = bisect_right(self._ordered, after_id)
        ids = self._ordered[start : start + size + 1]
        return [self._known[reference_id] for reference_id in ids[:size]], len(ids) > size


class Listeners:
    """Who listens to the changes of references, by id."""

    def __init__(self) -> None:
        self._listeners: dict[ReferenceId, set[Listener]] = {}

    def __contains__(self, reference_id: ReferenceId) -> bool:
        return reference_id in self._listeners

    @contextmanager
    def listen(self, reference_id: ReferenceId, listener: Listener) -> Iterator[None]:
        """Calls the listener at every change of this reference until the block ends."""
        self._listeners.setdefault(reference_id, set()).add(listener)
        try:
            yield
        finally:
            listeners = self._listeners[reference_id]
            listeners.discard(listener)
            if not listeners:
                del self._listeners[reference_id]

    def notify(self, reference_id: ReferenceId, info: ReferenceInfo | None) -> None:
        for listener in list(self._listeners.get(reference_id, ())):
            listener(info)
