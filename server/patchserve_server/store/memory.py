"""References in memory, until the process ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from patchserve_server.domain.errors import ReferenceChangedError, ReferenceNotFoundError, RevisionNotKeptError
from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision


@dataclass(frozen=True, slots=True)
class _Stored:
    current: Reference
    previous: Reference | None

    @property
    def kept(self) -> KeptRevision | None:
        if self.previous is None:
            return None
        bank = self.previous.model.bank
        is_shared = bank is self.current.model.bank  # they differ in sensitivity only
        return KeptRevision(self.previous.revision, 0 if is_shared else bank.nbytes)


class MemoryReferenceStore:
    """A ReferenceStore without a folder."""

    is_durable = False

    def __init__(self) -> None:
        self._stored: dict[ReferenceId, _Stored] = {}
        self._changing = threading.Lock()

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        """Make this revision the current one of its reference. The old one becomes the previous one.

        Raises:
            ReferenceChangedError: `base` is not current.
        """
        with self._changing:
            old, previous = self._stored.get(reference.reference_id), None
            _require(reference.reference_id, old, base)
            if old is not None:
                previous = old.previous if old.current.revision == reference.revision else old.current
            return self._set(_Stored(reference, previous))

    def load(self, reference_id: ReferenceId) -> Reference:
        """The current revision.

        Raises:
            ReferenceNotFoundError: there is none.
        """
        stored = self._get(reference_id)
        previous = None if stored.previous is None else stored.previous.revision
        return replace(stored.current, previous_revision=previous)

    def describe(self, reference_id: ReferenceId) -> ReferenceInfo:
        """The description of the current revision.

        Raises:
            ReferenceNotFoundError: there is none.
        """
        return self.load(reference_id).info

    def load_previous(self, reference_id: ReferenceId) -> Reference:
        """The previous revision.

        Raises:
            ReferenceNotFoundError: there is no such reference.
            RevisionNotKeptError: it has no previous revision.
        """
        previous = self._get(reference_id).previous
        if previous is None:
            raise RevisionNotKeptError(reference_id, None, None)
        return previous

    def describe_previous(self, reference_id: ReferenceId) -> ReferenceInfo:
        """The description of the previous revision.

        Raises:
            The errors of `load_previous`.
        """
        return self.load_previous(reference_id).info

    def restore(
        self, reference_id: ReferenceId, revision: Revision, base: Revision | None = None
    ) -> KeptRevision | None:
        """Exchange the current and the previous revision.

        Raises:
            ReferenceNotFoundError, RevisionNotKeptError: `revision` is not the previous revision.
            ReferenceChangedError: `base` is not current.
        """
        with self._changing:
            stored = self._get(reference_id)
            _require(reference_id, stored, base)
            kept = None if stored.previous is None else stored.previous.revision
            if stored.previous is None or kept != revision:
                raise RevisionNotKeptError(reference_id, revision, kept)
            return self._set(_Stored(stored.previous, stored.current))

    def forget_previous(self, reference_id: ReferenceId) -> None:
        """Free the memory of the previous revision, if there is one."""
        with self._changing:
            if (stored := self._stored.get(reference_id)) is not None:
                self._set(_Stored(stored.current, None))

    def list_ids(self) -> Sequence[ReferenceId]:
        """The ids of all references, sorted."""
        return sorted(self._stored.copy())

    def delete(self, reference_id: ReferenceId, revision: Revision | None = None) -> None:
        """Remove a reference and its previous revision.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceChangedError: `revision` is not current.
        """
        with self._changing:
            _require(reference_id, self._get(reference_id), revision)
            del self._stored[reference_id]

    def _get(self, reference_id: ReferenceId) -> _Stored:
        stored = self._stored.get(reference_id)
        if stored is None:
            raise ReferenceNotFoundError(reference_id)
        return stored

    def _set(self, stored: _Stored) -> KeptRevision | None:
        self._stored[stored.current.reference_id] = stored
        return stored.kept


def _require(reference_id: ReferenceId, stored: _Stored | None, base: Revision | None) -> None:
    if base is not None and (stored is None or stored.current.revision != base):
        raise ReferenceChangedError(reference_id)
