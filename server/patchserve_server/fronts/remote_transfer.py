"""References as single files, which the engine of another process reads and writes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.fronts.link import Link
from patchserve_server.serving.reference_transfer import Export, ImportOptions
from patchserve_server.serving.values import body_of, from_json_bytes


class RemoteTransfer:
    """Implements `engine_ports.Transfer` over a link, a chunk at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def export(self, reference_id: ReferenceId, expected_revision: Revision | None) -> AsyncIterator[Export]:
        number = next(self._numbers)
        request = {"do": "export", "export": number, "id": reference_id, "expected": expected_revision}
        try:
            answer, body = await self._link.ask(request)
            yield Export(from_json_bytes(ReferenceInfo, body), answer["size"], self._chunks(number))
        finally:
            self._link.tell({"tell": "export_end", "export": number})

    async def _chunks(self, number: int) -> AsyncIterator[bytes]:
        while chunk := (await self._link.ask({"do": "export_chunk", "export": number}))[1]:
            yield chunk

    async def import_reference(self, options: ImportOptions, chunks: AsyncIterator[bytes]) -> ReferenceInfo:
        number = next(self._numbers)
        importing = asyncio.create_task(self._link.ask({"do": "import", "import": number}, body_of(options)))
        try:
            async for chunk in chunks:
                if not await self._is_taken(number, chunk, importing):
                    break
            else:
                # As a task, like what came before it: tasks begin, and so send, in the order in which they are made.
                await asyncio.create_task(self._link.ask({"do": "import_end", "import": number}))
            _, body = await importing
            return from_json_bytes(ReferenceInfo, body)
        finally:
            importing.cancel()  # does nothing if it is done
            del importing  # its error refers to this frame: a cycle

    async def _is_taken(self, number: int, chunk: bytes, importing: asyncio.Task[object]) -> bool:
        """Sends a chunk; returns whether the engine may want another one. False: the import has ended."""
        taking = asyncio.create_task(self._link.ask({"do": "import_chunk", "import": number}, chunk))
        try:
            await asyncio.wait((taking, importing), return_when=asyncio.FIRST_COMPLETED)
            if importing.done():
                return False
            await taking
            return True
        finally:
            taking.cancel()
