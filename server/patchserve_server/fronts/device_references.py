"""The banks of a device whose process keeps no references: they come from the engine that keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

from patchserve_server.domain.errors import (
    BankMismatchError,
    EngineLostError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.domain.events import Events
from patchserve_server.domain.ports import Detector, ReferenceFiles, Scorer
from patchserve_server.domain.reference import ReferenceInfo, ReferenceModel
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.fronts.remote_engine import RemoteEngine
from patchserve_server.serving.entering import entered
from patchserve_server.serving.open_references import OpenReferences
from patchserve_server.serving.reference_use import HeldReference, ReferenceUse

T = TypeVar("T")


class DeviceReferences(Events):
    """Opens revisions for the fronts, and listens for those that are replaced or deleted.

    Args:
        detector: opens them.
        files: takes them as files.
        executor: the pool that reads and opens.
        max_bytes: the memory limit of all that are open, on this device alone.
    """

    def __init__(self, detector: Detector, files: ReferenceFiles, executor: Executor, *, max_bytes: int) -> None:
        self._detector = detector
        self._files = files
        self._executor = executor
        self._engine: RemoteEngine | None = None
        self.open = OpenReferences(
            self._fetch_and_open,
            detector.open_nbytes,
            lambda info: detector.shared_nbytes(info.input_shape, info.options),
            lambda _: None,
            max_bytes=max_bytes,
            may_close=True,
        )

    def connected(self, engine: RemoteEngine | None) -> None:
        """Takes revisions from this engine from now on; None: it is lost. What it does not know is retired."""
        self._engine = engine
        if engine is not None:
            for reference_id in self.open:
                self.reference_changed(reference_id, engine.references.find(reference_id))

    def reference_changed(self, reference_id: ReferenceId, reference: ReferenceInfo | None) -> None:
        opened = self.open.find(reference_id)
        if opened is None or reference is None or opened.info.revision != reference.revision:
            self.open.retire(reference_id)

    def use(self, reference_id: ReferenceId, revision: Revision) -> ReferenceUse:
        """A revision that is current, as far as the front knows. It stays open until the block ends.

        Raises:
            The errors of Catalog.use, and EngineLostError.
        """
        return ReferenceUse(partial(self._acquire, reference_id, revision))

    async def _acquire(self, reference_id: ReferenceId, revision: Revision) -> HeldReference:
        info = await self._info(reference_id, revision)
        held = await self.open.acquire(info)
        if held.reference.info.revision != revision:
            held.release()
            self.open.retire(reference_id)
            held = await self.open.acquire(info)
        return held

    async def _info(self, reference_id: ReferenceId, revision: Revision) -> ReferenceInfo:
        engine = self._connected_engine()
        try:
            return await engine.references.info(reference_id, revision)
        except (RevisionMismatchError, ReferenceNotFoundError):
            await engine.link.ask({"do": "sync"})  # what the front has been told before is known here then
            return await engine.references.info(reference_id, revision)

    def _connected_engine(self) -> RemoteEngine:
        if self._engine is None:
            raise EngineLostError
        return self._engine

    async def _fetch_and_open(self, info: ReferenceInfo) -> Scorer:
        model = await self._fetch(info)
        try:
            return await self._run(partial(self._detector.open, model))
        except BankMismatchError as error:
            raise error.for_reference(info.reference_id) from None  # its cause would keep the bank in memory

    async def _fetch(self, info: ReferenceInfo) -> ReferenceModel:
        async with AsyncExitStack() as stack:
            exporting = self._connected_engine().transfer.export(info.reference_id, info.revision)
            export = await stack.enter_async_context(exporting)
            file = await stack.enter_async_context(entered(self._files.receive(export.size_bytes), self._executor))
            async for chunk in export.chunks:
                await self._run(partial(file.write, chunk))
            return (await self._run(file.finish)).model

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
