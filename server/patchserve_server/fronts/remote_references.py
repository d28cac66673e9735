"""The references of an engine in another process, as a front knows and uses them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from patchserve_server.domain.errors import PatchserveError, RevisionMismatchError
from patchserve_server.domain.events import Events
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.store_status import StoreStatus
from patchserve_server.fronts.devices import Devices, HeldRevision
from patchserve_server.fronts.errors import error_from_json
from patchserve_server.fronts.frames import Head
from patchserve_server.fronts.link import Link
from patchserve_server.serving.known_references import Known, KnownReferences, Listener, Listeners
from patchserve_server.serving.values import from_json, from_json_bytes


def info_in(body: bytes) -> ReferenceInfo:
    return from_json_bytes(ReferenceInfo, body)


class RemoteReferences:
    """Implements `engine_ports.References`: a copy of what the engine's catalog knows, and its changes over a link.

    The engine answers a change only when every front knows of it. So what is known here is never older than an answer
    that any front has given. With a store that other servers share, the engine itself does not know all references: it
    is asked for those that are not known here.

    Args:
        link: to the engine.
        events: hears of every change.
        devices: open what is used.
    """

    def __init__(self, link: Link, events: Events, devices: Devices) -> None:
        self._link = link
        self._devices = devices
        self._events = events
        self.knows_all = True  # all that there are
        self._known = KnownReferences()
        self._listeners = Listeners()

    @property
    def usable_count(self) -> int:
        return len(self._known)

    def learn(self, head: Head, body: bytes) -> None:
        """Takes what the engine tells of a reference."""
        reference_id, error = ReferenceId(head["id"]), head.get("error")
        known: Known = info_in(body) if body else None
        if error is not None:
            failure = error_from_json(error)
            if not isinstance(failure, PatchserveError):
                raise failure
            known = failure
        before = self._known.find(reference_id)
        self._known.set(reference_id, known)
        if head["is_news"] and not isinstance(known, PatchserveError) and (known is None or known != before):
            self._listeners.notify(reference_id, known)
            self._events.reference_changed(reference_id, known)

    @asynccontextmanager
    async def use(
        self, reference_id: ReferenceId, expected_revision: Revision | None = None
    ) -> AsyncIterator[HeldRevision]:
        """The current revision, opened by the engine first if needed. It stays open until the block ends.

        Raises:
            The errors of Catalog.use, and EngineLostError.
        """
        while True:
            info = await self.info(reference_id, expected_revision)
            async with AsyncExitStack() as stack:
                try:
                    held = await stack.enter_async_context(self._devices.hold(info))
                except RevisionMismatchError:
                    if self._known.find(reference_id) == info:
                        raise
                    continue  # it was replaced in the meantime
                yield held
                return

    async def info(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceInfo:
        info = self._known.find(reference_id)
        if self.knows_all or (info is not None and expected_revision in (None, info.revision)):
            return self._known.info(reference_id, expected_revision)
        _, body = await self._link.ask({"do": "info", "id": reference_id, "expected": expected_revision})
        return info_in(body)

    def find(self, reference_id: ReferenceId) -> ReferenceInfo | None:
        return self._known.find(reference_id)

    async def has(self, reference_id: ReferenceId) -> bool:
        if self.knows_all or self._known.find(reference_id) is not None:
            return self._known.find(reference_id) is not None
        answer, _ = await self._link.ask({"do": "has", "id": reference_id})
        return bool(answer["has"])

    async def page(self, after_id: str, size: int) -> tuple[list[ReferenceInfo], bool]:
        if self.knows_all:
            return self._known.page(after_id, size)
        answer, body = await self._link.ask({"do": "page", "after": after_id, "size": size})
        return [from_json(ReferenceInfo, each) for each in json.loads(body)], bool(answer["has_more"])

    async def store_status(self) -> StoreStatus:
        _, body = await self._link.ask({"do": "store_status"})
        return from_json_bytes(StoreStatus, body)

    def listen(self, reference_id: ReferenceId, listener: Listener) -> AbstractContextManager[None]:
        return self._listeners.listen(reference_id, listener)

    async def tune(
        self, reference_id: ReferenceId, sensitivity: float, expected_revision: Revision | None = None
    ) -> ReferenceInfo:
        return await self._change("tune", id=reference_id, sensitivity=sensitivity, expected=expected_revision)

    async def restore(
        self, reference_id: ReferenceId, revision: Revision | None = None, expected_revision: Revision | None = None
    ) -> ReferenceInfo:
        return await self._change("restore", id=reference_id, revision=revision, expected=expected_revision)

    async def history(self, reference_id: ReferenceId) -> list[ReferenceInfo]:
        _, body = await self._link.ask({"do": "history", "id": reference_id})
        return [from_json(ReferenceInfo, each) for each in json.loads(body)]

    async def delete(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> str:
        answer, _ = await self._link.ask({"do": "delete", "id": reference_id, "expected": expected_revision})
        return str(answer["revision"])

    async def _change(self, name: str, **arguments: Any) -> ReferenceInfo:  # noqa: ANN401 - whatever JSON has
        _, body = await self._link.ask({"do": name, **arguments})
        return info_in(body)
