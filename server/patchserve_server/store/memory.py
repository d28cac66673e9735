"""References that live as long as the process."""

from __future__ import annotations

from collections.abc import Sequence

from patchserve_server.domain.errors import ReferenceNotFoundError
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId


class MemoryReferenceStore:
    """A ReferenceStore without a disk. Each method is one step of a dict, so threads need no lock."""

    is_durable = False

    def __init__(self) -> None:
        self._references: dict[ReferenceId, Reference] = {}

    def save(self, reference: Reference) -> None:
        """Makes this revision the current one of its id."""
        self._references[reference.reference_id] = reference

    def load(self, reference_id: ReferenceId) -> Reference:
        """The current revision.

        Raises:
            ReferenceNotFoundError: there is none.
        """
        reference = self._references.get(reference_id)
        if reference is None:
            raise ReferenceNotFoundError(reference_id)
        return reference

    def list_ids(self) -> Sequence[ReferenceId]:
        """The ids that have a current revision, sorted."""
        return sorted(self._references.copy())

    def delete(self, reference_id: ReferenceId) -> None:
        """Forgets this id.

        Raises:
            ReferenceNotFoundError: there is none.
        """
        if self._references.pop(reference_id, None) is None:
            raise ReferenceNotFoundError(reference_id)
