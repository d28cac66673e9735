"""The calls of the blocking client that move references as files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from patchserve.v1 import reference_pb2
from patchserve_client import _reference_files as files
from patchserve_client import _results
from patchserve_client._base import BaseClient
from patchserve_client._errors import translate_errors
from patchserve_client._reference_header import DEFAULT_ID
from patchserve_client._types import ReferenceInfo
from patchserve_client._upload import upload

if TYPE_CHECKING:
    from patchserve_client._client import Client


class TransferCalls(BaseClient):
    """The part of `Client` that moves references as files."""

    def export_reference(
        self,
        reference_id: str,
        path: str | os.PathLike[str],
        *,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """Write a reference to one file, which any server with the same backbone, weights and precision can import.

        The file has the images of the reference, as the backbone saw them. Needs the scope `manage`.

        Args:
            reference_id: the reference.
            path: of the file. One that exists is replaced when the new one is whole.
            expected_revision: fail if the reference is at another revision; empty: accept any.
            timeout_s: the deadline, in seconds; None: the client's `load_timeout_s`.

        Raises:
            NotFound: there is no such reference.
            FailedPrecondition: it is not at `expected_revision`.
            OSError: the file cannot be written.
        """
        with (
            self._exported(reference_id, expected_revision, timeout_s) as (start, chunks),
            files.new_file(Path(path)) as file,
        ):
            for chunk in chunks:
                file.write(chunk)
            file.check(start.size_bytes)
        return _results.reference_info(start.reference)

    def import_reference(
        self,
        path: str | os.PathLike[str],
        reference_id: str = "",
        *,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """Take a reference from a file of `export_reference`. Returns when the server uses it.

        An existing reference of this name is replaced; the server keeps its revision for `restore_reference`. The call
        is not retried. Needs the scope `manage`.

        Args:
            path: of the file.
            reference_id: the name of the reference; empty: the one that it had.
            expected_revision: fail unless this revision is replaced; needs `reference_id`. Empty: replace any, or none.
            timeout_s: the deadline, in seconds; None: the client's `load_timeout_s`.

        Raises:
            InvalidArgument: it is not such a file, or it is damaged.
            FailedPrecondition: the server has another backbone, other weights or another precision; or the reference is
                not at `expected_revision`.
            ResourceExhausted: it does not fit into the server's memory limit, or on its disk.
            OSError: the file cannot be read.
        """
        with Path(path).open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            start = files.import_start(size_bytes, reference_id, expected_revision)
            return self._import(start, files.chunks_of(file), timeout_s)

    def copy_reference(
        self,
        reference_id: str,
        new_id: str,
        *,
        to: Client | None = None,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """Copy a reference to another name, or to another server. Returns when it is in use there.

        It passes through this process, but is never in its memory as a whole.

        Args:
            reference_id: the reference.
            new_id: the name of the copy. An existing reference of this name is replaced, as by `import_reference`.
            to: the client of the other server; None: the same server.
            expected_revision: fail if the reference is at another revision; empty: accept any.
            timeout_s: the deadline, in seconds; None: the client's `load_timeout_s`.

        Raises:
            NotFound: there is no such reference.
            PatchserveError: as `import_reference`.
        """
        with self._exported(reference_id, expected_revision, timeout_s) as (exported, chunks):
            start = files.import_start(exported.size_bytes, new_id, "")
            return (self if to is None else to)._import(start, chunks, timeout_s)  # noqa: SLF001 - of this class

    @contextmanager
    def _exported(
        self, reference_id: str, expected_revision: str, timeout_s: float | None
    ) -> Iterator[tuple[reference_pb2.ReferenceFile, Iterator[bytes]]]:
        """What the file has, and its bytes. The call ends with the block."""
        call = self._opened.service.ExportReference(
            files.export_request(reference_id, expected_revision),
            timeout=self._load_deadline_s(timeout_s),
            metadata=self._connection.metadata(reference_id or DEFAULT_ID),
        )

        def chunks() -> Iterator[bytes]:
            with translate_errors(self._connection):
                for message in call:
                    yield message.chunk

        try:
            with translate_errors(self._connection):
                start = files.started(next(call, None))
            yield start, chunks()
        finally:
            call.cancel()

    def _import(
        self, start: reference_pb2.ImportReferenceRequest, chunks: Iterator[bytes], timeout_s: float | None
    ) -> ReferenceInfo:
        # Without an id, the one in the file counts, which only the server reads.
        deadline_s, metadata = self._load_deadline_s(timeout_s), self._connection.metadata(start.start.reference_id)
        method = self._opened.service.ImportReference
        response = upload(
            lambda messages: method.future(messages, timeout=deadline_s, metadata=metadata),
            files.import_messages(start, chunks),
            self._connection,
        )
        self._own.note(response.reference.reference_id, response.reference.revision)
        return _results.reference_info(response.reference)
