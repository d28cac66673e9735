"""A reference as one file, as docs/format.md specifies: a head, the files of a generation, and a digest."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from patchserve_server.domain.errors import InvalidInputError, ReferenceFileError
from patchserve_server.domain.ports import ImportedReference
from patchserve_server.domain.reference import Bank, Reference
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.bank_file import MAX_HEADER_BYTES
from patchserve_server.store.damage import DamageError
from patchserve_server.store.generation import (
    BANK_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    OpenGeneration,
    write_generation,
)
from patchserve_server.store.os_errors import storage_errors
from patchserve_server.store.publishing import staging_folder
from patchserve_server.store.records import HEAD_VERSION, Head, decode_record, encode_record

MAGIC: Final = b"PATCHSERVE-REF\r\n"  # a transfer as text would change its end
_LENGTH_BYTES: Final = 8
_DIGEST_BYTES: Final = 32
_MAX_HEAD_BYTES: Final = 4096
_LARGEST: Final = 1e15  # of a vector: a sum of squares of float32 overflows above 1e19


class ExportedFiles:
    """Implements `domain.ports.ReferenceFiles`.

    Args:
        folder: for what is sent or received; None: the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder

    @contextmanager
    def export(self, reference: Reference) -> Iterator[OutgoingReference]:
        with ExitStack() as stack:
            with storage_errors(f'export reference "{reference.reference_id}"'):
                staged = stack.enter_context(staging_folder(self._folder)) / reference.revision
                write_generation(staged, reference)
                parts = [stack.enter_context((staged / name).open("rb")) for name in (MANIFEST_NAME, BANK_NAME)]
                sizes = [(staged / name).stat().st_size for name in (MANIFEST_NAME, BANK_NAME)]
            yield OutgoingReference(_start_of(reference, *sizes), parts, sum(sizes))

    @contextmanager
    def receive(self, size_bytes: int) -> Iterator[IncomingReference]:
        with ExitStack() as stack:
            with storage_errors("receive a reference"):
                folder = stack.enter_context(staging_folder(self._folder))
                files = [stack.enter_context((folder / name).open("wb")) for name in (MANIFEST_NAME, BANK_NAME)]
            yield IncomingReference(folder, files, size_bytes)

    def largest_for(self, bank_bytes: int) -> int:
        around = len(MAGIC) + _LENGTH_BYTES + _MAX_HEAD_BYTES + _DIGEST_BYTES
        return around + MAX_MANIFEST_BYTES + _LENGTH_BYTES + MAX_HEADER_BYTES + bank_bytes


def _start_of(reference: Reference, manifest_bytes: int, bank_bytes: int) -> bytes:
    head = encode_record(
        Head(
            format_version=HEAD_VERSION,
            reference_id=reference.reference_id,
            revision=reference.revision,
            manifest_bytes=manifest_bytes,
            bank_bytes=bank_bytes,
        )
    )
    return MAGIC + len(head).to_bytes(_LENGTH_BYTES, "little") + head


class OutgoingReference:
    """Implements `domain.ports.OutgoingFile`."""

    def __init__(self, start: bytes, parts: Sequence[BinaryIO], parts_bytes: int) -> None:
        self._start = start
        self._parts = list(parts)
        self._digest = hashlib.sha256()
        self._is_ended = False
        self.size_bytes = len(start) + parts_bytes + _DIGEST_BYTES

    def read(self, max_bytes: int) -> bytes:
        with storage_errors("read an exported reference"):
            data = self._read_content(max_bytes)
        if data or self._is_ended:
            self._digest.update(data)
            return data
        self._is_ended = True
        return self._digest.digest()

    def _read_content(self, max_bytes: int) -> bytes:
        start, self._start = self._start, b""
        while not start and self._parts:
            start = self._parts[0].read(max_bytes)
            if not start:
                self._parts.pop(0)
        return start


class IncomingReference:
    """Implements `domain.ports.IncomingFile`. Its parts become the files of a generation, and are read as one.

    Args:
        folder: of the files.
        files: the manifest and the bank, empty.
        size_bytes: of the whole file.
    """

    def __init__(self, folder: Path, files: Sequence[BinaryIO], size_bytes: int) -> None:
        self._folder = folder
        self._files = files
        self._size_bytes = size_bytes
        self._start = bytearray()  # of the file, until its head is known
        self._head: Head | None = None
        self._missing: list[int] = []  # bytes of each file
        self._content = hashlib.sha256()
        self._digest = bytearray()  # as the file has it

    def write(self, data: bytes) -> None:
        with _file_errors(), storage_errors("receive a reference"):
            rest = memoryview(data) if self._head is not None else self._take_head(data)
            for number, file in enumerate(self._files):
                if rest and self._missing and self._missing[number]:
                    part, rest = rest[: self._missing[number]], rest[self._missing[number] :]
                    file.write(part)
                    self._content.update(part)
                    self._missing[number] -= len(part)
            self._digest += rest[: _DIGEST_BYTES + 1]
            if len(self._digest) > _DIGEST_BYTES:
                raise DamageError("it goes on after its end")

    def _take_head(self, data: bytes) -> memoryview:
        """Takes bytes until the head is known; returns those behind it."""
        self._start += data
        begin = len(MAGIC) + _LENGTH_BYTES
        if not self._start.startswith(MAGIC[: len(self._start)]):
            raise DamageError("it does not begin as one")
        if len(self._start) < begin:
            return memoryview(b"")
        length = int.from_bytes(self._start[len(MAGIC) : begin], "little")
        if length > _MAX_HEAD_BYTES:
            raise DamageError(f"its head has more than {_MAX_HEAD_BYTES} bytes")
        if len(self._start) < begin + length:
            return memoryview(b"")
        start, self._start = bytes(self._start), bytearray()
        self._head = head = decode_record(Head, start[begin : begin + length])
        if head.manifest_bytes > MAX_MANIFEST_BYTES:
            raise DamageError(f"its manifest has more than {MAX_MANIFEST_BYTES} bytes")
        size_bytes = begin + length + head.manifest_bytes + head.bank_bytes + _DIGEST_BYTES
        if size_bytes != self._size_bytes:
            raise DamageError(f"it must have {size_bytes} bytes, and was announced with {self._size_bytes}")
        self._missing = [head.manifest_bytes, head.bank_bytes]
        self._content.update(start[: begin + length])
        return memoryview(start)[begin + length :]

    def finish(self) -> ImportedReference:
        with _file_errors(), storage_errors("read a received reference"):
            head = self._head
            if head is None or len(self._digest) < _DIGEST_BYTES:
                raise DamageError("it ends too soon")
            if bytes(self._digest) != self._content.digest():
                raise DamageError("its content does not match the digest at its end")
            for file in self._files:
                file.close()
            reference_id = ReferenceId(head.reference_id)
            content = OpenGeneration(self._folder, head.revision).read()
            _check_numbers(content.model.bank)
            return ImportedReference(reference_id, Revision(head.revision), content.model, content.images)


def _check_numbers(bank: Bank) -> None:
    """Raises DamageError for vectors that no backbone makes: their scores would be no numbers."""
    for name in (field.name for field in fields(bank)):
        array = getattr(bank, name)
        # Of an array with NaN, both are NaN, and no comparison with NaN holds.
        if array.dtype == np.float32 and array.size and not (array.min() >= -_LARGEST and array.max() <= _LARGEST):
            raise DamageError(f"its array {name} has a value that is not finite, or beyond {_LARGEST:g}")


@contextmanager
def _file_errors() -> Iterator[None]:
    """Raise damage as an error of the caller's file."""
    what = "This is not an undamaged file of ExportReference"
    try:
        yield
    except DamageError as error:
        raise ReferenceFileError(f"{what}: {error}.") from error
    except InvalidInputError as error:
        raise ReferenceFileError(f"{what}: {error.message}") from error
