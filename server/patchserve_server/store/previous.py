"""Which revision is kept besides the current one: the one before it, as long as its files look intact."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from patchserve_server.domain.reference import ReferenceOperation
from patchserve_server.store.generation import is_whole
from patchserve_server.store.records import POINTER_VERSION, Pointer, PreviousRevision


def pointer_after(
    folder: Path,
    old: Pointer | None,
    revision: str,
    *,
    create_time: datetime,
    update_time: datetime,
    operation: ReferenceOperation | None,
) -> Pointer:
    """The pointer that makes this revision of the reference in `folder` the current one.

    Args:
        folder: of the reference.
        old: the pointer that it replaces; None: there is no intact one.
        revision: the new current revision.
        create_time: of the reference.
        update_time: of the revision.
        operation: that made it; None: not known.
    """
    return Pointer(
        format_version=POINTER_VERSION,
        reference_id=folder.name,
        revision=revision,
        create_time=create_time,
        update_time=update_time,
        operation=operation,
        previous=None if old is None else _to_keep(folder, old, revision),
    )


def _to_keep(folder: Path, old: Pointer, revision: str) -> PreviousRevision | None:
    """The revision that was current. If it is the new one again, or damaged, the one that was kept besides it."""
    current = PreviousRevision(revision=old.revision, update_time=old.update_time, operation=old.operation)
    for candidate in (current, old.previous):
        if candidate is not None and candidate.revision != revision and is_whole(folder / candidate.revision):
            return candidate
    return None
