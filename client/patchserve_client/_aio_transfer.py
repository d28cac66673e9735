"""The calls of the client for asyncio that move references as files."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from patchserve.v1 import reference_pb2
from patchserve_client import _reference_files as files
from patchserve_client import _results
from patchserve_client._aio_status import server_status_first
from patchserve_client._base import BaseClient
from patchserve_client._reference_header import DEFAULT_ID
from patchserve_client._types import ReferenceInfo

if TYPE_CHECKING:
    from patchserve_client._aio import AsyncClient


class AsyncTransferCalls(BaseClient):
    """The part of `AsyncClient` that moves references as files."""

    @abstractmethod
    def _translate_errors(self) -> AbstractContextManager[None]: ...

    async def export_reference(
        self,
        reference_id: str,
        path: str | os.PathLike[str],
        *,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """Like `Client.export_reference`. Worker threads write the file."""
        async with self._exported(reference_id, expected_revision, timeout_s) as (start, chunks):
            manager = files.new_file(Path(path))
            file = await asyncio.to_thread(manager.__enter__)
            try:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
                file.check(start.size_bytes)
            except BaseException as error:
                manager.__exit__(type(error), error, error.__traceback__)
                raise
            await asyncio.to_thread(manager.__exit__, None, None, None)
        return _results.reference_info(start.reference)

    async def import_reference(
        self,
        path: str | os.PathLike[str],
        reference_id: str = "",
        *,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """Like `Client.import_reference`. Worker threads read the file."""
        file = await asyncio.to_thread(Path(path).open, "rb")

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await asyncio.to_thread(file.read, files.CHUNK_BYTES):
                yield chunk

        with file:
            size_bytes = os.fstat(file.fileno()).st_size
            start = files.import_start(size_bytes, reference_id, expected_revision)
            return await self._import(start, chunks(), timeout_s)

    async def copy_reference(
        self,
        reference_id: str,
        new_id: str,
        *,
        to: AsyncClient | None = None,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """Like `Client.copy_reference`."""
        async with self._exported(reference_id, expected_revision, timeout_s) as (exported, chunks):
            start = files.import_start(exported.size_bytes, new_id, "")
            return await (self if to is None else to)._import(start, chunks, timeout_s)  # noqa: SLF001 - of this class

    @asynccontextmanager
    async def _exported(
        self, reference_id: str, expected_revision: str, timeout_s: float | None
    ) -> AsyncIterator[tuple[reference_pb2.ReferenceFile, AsyncIterator[bytes]]]:
        call = self._opened.service.ExportReference(
            files.export_request(reference_id, expected_revision),
            timeout=self._load_deadline_s(timeout_s),
            metadata=self._connection.metadata(reference_id or DEFAULT_ID),
        )
        messages = aiter(call)

        async def chunks() -> AsyncIterator[bytes]:
            with self._translate_errors():
                async for message in messages:
                    yield message.chunk

        try:
            with self._translate_errors():
                start = files.started(await anext(messages, None))
            async with aclosing(chunks()) as content:  # type: ignore[type-var] # it is a generator
                yield start, content
        finally:
            call.cancel()

    async def _import(
        self,
        start: reference_pb2.ImportReferenceRequest,
        chunks: AsyncIterator[bytes],
        timeout_s: float | None,
    ) -> ReferenceInfo:
        with self._translate_errors():
            call = self._opened.service.ImportReference(
                timeout=self._load_deadline_s(timeout_s),
                metadata=self._connection.metadata(start.start.reference_id),
            )
            try:
                async with server_status_first(call):
                    await call.write(start)
                    async for chunk in chunks:
                        await call.write(files.import_chunk(chunk))
                    await call.done_writing()
                    reference = (await call).reference
                    self._own.note(reference.reference_id, reference.revision)
                    return _results.reference_info(reference)
            finally:
                call.cancel()  # the server must not wait for the rest
