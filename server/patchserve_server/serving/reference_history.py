"""The revisions of a reference that are kept."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from contextlib import suppress

from patchserve_server.domain.errors import ReferenceNotFoundError, RevisionNotKeptError
from patchserve_server.domain.ports import ReferenceStore
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.store_view import StoreView


async def history_of(
    reference_id: ReferenceId, view: StoreView, store: ReferenceStore, executor: Executor
) -> list[ReferenceInfo]:
    """The current revision, then the previous one if it is kept.

    Args:
        reference_id: the reference.
        view: knows what is current.
        store: has the previous one.
        executor: reads its description.

    Raises:
        ReferenceNotFoundError: there is no such reference.
        ReferenceDamagedError: the current or the previous revision is damaged.
        StorageUnavailableError: the previous one cannot be read.
    """
    loop = asyncio.get_running_loop()
    while True:
        current, revisions = await view.info(reference_id), list[ReferenceInfo]()
        if current.previous_revision is not None:
            with suppress(RevisionNotKeptError, ReferenceNotFoundError):  # it has changed meanwhile
                revisions.append(await loop.run_in_executor(executor, store.describe_previous, reference_id))
        if view.is_current(current):
            return [current, *revisions]
