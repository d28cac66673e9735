"""The pointers that changes of a reference make."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from patchserve_server.domain.errors import ReferenceChangedError, RevisionNotKeptError
from patchserve_server.domain.reference_id import Revision
from patchserve_server.store.shared.pointers import FoundPointer
from patchserve_server.store.shared.records import FORMAT_VERSION, SharedPointer, StoredRevision, Tombstone


def require_base(found: FoundPointer, base: Revision | None) -> None:
    """Raise an error if another revision than `base` is current, or none. What is damaged has no revision.

    Raises:
        ReferenceChangedError: as said.
    """
    if base is None:
        return
    if not found.is_there or (found.pointer is not None and found.pointer.current.revision != base):
        raise ReferenceChangedError(found.reference_id)


def saved(
    found: FoundPointer,
    revision: StoredRevision,
    create_time: datetime,
    nonce: str,
    is_damaged: Callable[[StoredRevision], bool],
) -> SharedPointer:
    """The pointer that makes a revision the current one.

    The old one becomes the previous one. If it has the same content, or is damaged, the previous one stays.
    """
    old = found.pointer
    if old is None:
        return _pointer(found, nonce, create_time, revision, None)
    is_same = old.current.revision == revision.revision
    parent = old.current.parent if is_same else old.current.revision
    candidates = (each for each in old.revisions if each.revision != revision.revision and not is_damaged(each))
    return _pointer(found, nonce, create_time, revision.model_copy(update={"parent": parent}), next(candidates, None))


def restored(found: FoundPointer, old: SharedPointer, revision: Revision, nonce: str) -> SharedPointer:
    """The pointer with the current and the previous revision exchanged.

    Raises:
        RevisionNotKeptError: `revision` is not the previous revision.
    """
    if old.previous is None or old.previous.revision != revision:
        kept = None if old.previous is None else old.previous.revision
        raise RevisionNotKeptError(found.reference_id, revision, kept)
    return _pointer(found, nonce, old.create_time, old.previous, old.current)


def _pointer(
    found: FoundPointer, nonce: str, create_time: datetime, current: StoredRevision, previous: StoredRevision | None
) -> SharedPointer:
    return SharedPointer(
        format_version=FORMAT_VERSION,
        reference_id=found.reference_id,
        nonce=nonce,
        replaced_nonce=found.nonce,
        create_time=create_time,
        current=current,
        previous=previous,
    )


def deleted(found: FoundPointer, delete_time: datetime, nonce: str) -> Tombstone:
    """The tombstone in the place of a pointer."""
    return Tombstone(
        format_version=FORMAT_VERSION,
        reference_id=found.reference_id,
        nonce=nonce,
        replaced_nonce=found.nonce,
        deleted=True,
        delete_time=delete_time,
    )
