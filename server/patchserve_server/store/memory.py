"""References in memory, until the process ends."""

from __future__ import annotations

from collections.abc import Sequence

from patchserve_server.domain.errors import ReferenceNotFoundError
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId


class MemoryReferenceStore:
    """A ReferenceStore without a folder. Each method is one atomic operation on a dict, so it needs no lock."""

    is_durable = False

    def __init__(self) -> None:
        self._references: dict[ReferenceId, Reference] = {}

    def save(self, reference: Reference) -> None:
        """Make this revision the current one of its reference."""
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
        """The ids of all references, sorted."""
        return sorted(self._references.copy())

    def delete(self, reference_id: ReferenceId) -> None:
        """Remove a reference.

        Raises:
            ReferenceNotFoundError: there is none.
        """
        if self._references.pop(reference_id, None) is None:
            raise ReferenceNotFoundError(reference_id)
