"""Copies references from one store into another, of any kind. What is there already is not copied again."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.errors import (
    PatchserveError,
    ReferenceChangedError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionNotKeptError,
)
from patchserve_server.domain.ports import ReferenceStore
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision

_AT_ONCE: Final = 4  # references, whose banks are in memory meanwhile


class Outcome(enum.Enum):
    """What happened to a reference."""

    COPIED = "copied"
    SAME = "there already"
    MISSING = "not in the source"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CopiedReference:
    """One reference, and what happened to it."""

    reference_id: ReferenceId
    outcome: Outcome
    problem: str = ""  # why it failed, or which part of it was left out
    bank_bytes: int = 0  # that were copied


def copy_references(
    source: ReferenceStore, target: ReferenceStore, ids: Sequence[ReferenceId]
) -> Iterator[CopiedReference]:
    """Copy these references, each with its previous revision, and read what was written.

    Args:
        source: has them.
        target: gets them. A reference that it has with other content gets the content of the source. It keeps no copies
            of what was written, so that what is read is what others read.
        ids: of the references.

    Yields:
        Each reference, as soon as it and those before it are done.
    """
    copying = _Copying(source, target)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(copying.copy, ids)


@dataclass(frozen=True, slots=True)
class _Copying:
    source: ReferenceStore
    target: ReferenceStore

    def copy(self, reference_id: ReferenceId) -> CopiedReference:
        try:
            return self._copy(reference_id)
        except ReferenceNotFoundError:
            return CopiedReference(reference_id, Outcome.MISSING)
        except PatchserveError as error:
            return CopiedReference(reference_id, Outcome.FAILED, error.message)

    def _copy(self, reference_id: ReferenceId) -> CopiedReference:
        wanted, problem, copied_bytes = self.source.describe(reference_id), "", 0
        found = _described(self.target, reference_id)
        if _is_same(wanted, found):
            return CopiedReference(reference_id, Outcome.SAME)
        base = None if found is None else found.revision
        if wanted.previous_revision is not None:
            try:
                previous = self.source.load_previous(reference_id)
            except (ReferenceDamagedError, RevisionNotKeptError) as error:
                problem = f"without its previous revision: {error.message}"
            else:
                copied_bytes += self._save(previous, base)
                base = previous.revision
        copied_bytes += self._save(self.source.load(reference_id), base)
        if not problem and wanted.previous_revision is not None:
            self.target.load_previous(reference_id)
        return CopiedReference(reference_id, Outcome.COPIED, problem, copied_bytes)

    def _save(self, reference: Reference, base: Revision | None) -> int:
        """Saves a revision, and reads all of it again, which verifies its digest.

        Args:
            reference: is saved.
            base: what the target has, so that what servers save there meanwhile is not lost; None: nothing intact.
        """
        self.target.save(reference, base)
        read = self.target.load(reference.reference_id)
        if read.revision != reference.revision:
            raise ReferenceChangedError(reference.reference_id)
        return reference.model.bank.nbytes


def _described(store: ReferenceStore, reference_id: ReferenceId) -> ReferenceInfo | None:
    """What a store has; None: nothing that is intact."""
    try:
        return store.describe(reference_id)
    except (ReferenceNotFoundError, ReferenceDamagedError):
        return None


def _is_same(wanted: ReferenceInfo, found: ReferenceInfo | None) -> bool:
    if found is None or wanted != found:
        return False
    return (wanted.previous_revision, wanted.operation) == (found.previous_revision, found.operation)
