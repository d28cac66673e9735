"""The engine's end of exports and imports through one front."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.incoming import Incoming
from patchserve_server.serving.engine_ports import Transfer
from patchserve_server.serving.reference_transfer import Export, ImportOptions
from patchserve_server.serving.values import body_of, from_json_bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Export:
    export: Export
    release: AsyncExitStack


class EngineTransfers:
    """Answers what a front asks for. When its link ends, everything that is held for it is released."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._exports: dict[int, _Export] = {}
        self._imports: dict[int, Incoming[bytes]] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self.answers = {
            "export": self._begin_export,
            "export_chunk": self._next_chunk,
            "import": self._import,
            "import_chunk": self._take_chunk,
            "import_end": self._end_import,
        }

    async def _begin_export(self, request: Head, _: bytes) -> tuple[Head, Body]:
        expected = None if request["expected"] is None else Revision(request["expected"])
        async with AsyncExitStack() as stack:
            export = await stack.enter_async_context(self._transfer.export(ReferenceId(request["id"]), expected))
            self._exports[request["export"]] = _Export(export, stack.pop_all())
        return {"size": export.size_bytes}, body_of(export.info)

    async def _next_chunk(self, request: Head, _: bytes) -> tuple[Head, Body]:
        """The next bytes; none after the last ones."""
        return {}, await anext(self._exports[request["export"]].export.chunks, b"")

    def end_export(self, number: int) -> None:
        """Releases an export whose caller needs no more of it."""
        if (ended := self._exports.pop(number, None)) is not None:
            task = asyncio.create_task(ended.release.aclose())
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _import(self, request: Head, body: bytes) -> tuple[Head, Body]:
        number, incoming = request["import"], Incoming[bytes]()
        self._imports[number] = incoming
        try:
            options = from_json_bytes(ImportOptions, body)
            return {}, body_of(await self._transfer.import_reference(options, incoming.items()))
        finally:
            del self._imports[number]

    async def _take_chunk(self, request: Head, body: bytes) -> tuple[Head, Body]:
        if (incoming := self._imports.get(request["import"])) is not None:  # else it has failed
            await incoming.put(body)
        return {}, b""

    async def _end_import(self, request: Head, _: bytes) -> tuple[Head, Body]:
        if (incoming := self._imports.get(request["import"])) is not None:
            incoming.end()
        return {}, b""

    def end_all(self) -> None:
        """The link has ended. Imports end by themselves: what answers their requests is cancelled."""
        for number in list(self._exports):
            self.end_export(number)
