"""Exported references: files, and the messages that carry them. No I/O to a server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from patchserve.v1 import reference_pb2
from patchserve_client._errors import Internal

CHUNK_BYTES: Final = 2**20


def export_request(reference_id: str, expected_revision: str) -> reference_pb2.ExportReferenceRequest:
    return reference_pb2.ExportReferenceRequest(reference_id=reference_id, expected_revision=expected_revision)


def started(message: reference_pb2.ExportReferenceResponse | None) -> reference_pb2.ReferenceFile:
    """What the first message of an export says.

    Raises:
        Internal: it is another one.
    """
    if message is None or message.WhichOneof("payload") != "start":
        raise Internal("The server did not begin the file with its description.")
    return message.start


def import_start(size_bytes: int, reference_id: str, expected_revision: str) -> reference_pb2.ImportReferenceRequest:
    start = reference_pb2.ImportStart(
        size_bytes=size_bytes, reference_id=reference_id, expected_revision=expected_revision
    )
    return reference_pb2.ImportReferenceRequest(start=start)


def import_chunk(chunk: bytes) -> reference_pb2.ImportReferenceRequest:
    return reference_pb2.ImportReferenceRequest(chunk=chunk)


def import_messages(
    start: reference_pb2.ImportReferenceRequest, chunks: Iterable[bytes]
) -> Iterator[reference_pb2.ImportReferenceRequest]:
    yield start
    yield from map(import_chunk, chunks)


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of an open file. It blocks."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


class WrittenFile:
    """A file that is being written, and counts its bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append a chunk. It blocks."""
        self._file.write(chunk)
        self.size_bytes += len(chunk)

    def check(self, size_bytes: int) -> None:
        """Check that all of it is there.

        Raises:
            Internal: the server has sent more or less than it said.
        """
        if self.size_bytes != size_bytes:
            raise Internal(f"The server sent {self.size_bytes} bytes of a file that has {size_bytes}.")


@contextmanager
def new_file(path: Path) -> Iterator[WrittenFile]:
    """A file that gets its name when it is whole. Until then, one of this name stays as it is. It blocks.

    Only its owner can read it, because it has the images of the reference.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield WrittenFile(file)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
