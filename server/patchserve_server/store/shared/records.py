"""The JSON records of a shared store (docs/format.md)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference import Calibration, ReferenceOperation
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.store.bank_file import DescribedBank
from patchserve_server.store.damage import DamageError
from patchserve_server.store.generation import MAX_MANIFEST_BYTES
from patchserve_server.store.records import (
    REVISION_PATTERN,
    Record,
    RecordPart,
    Revision,
    UtcTime,
    checked_sensitivity,
    decode_record,
    version_in,
)

FORMAT_VERSION = 1
MAX_IMAGES = 2**20  # of a bank
MAX_POINTER_BYTES = 2**18
MAX_SMALL_BYTES = 4096  # of a lease
MAX_ROOT_BYTES = 2**16
MAX_SHARD_BYTES = 2**22  # of some 15,000 references, and there are 256 shards
MAX_SHARD_VALUES = 350_000  # real entries have at least twelve bytes for each

Digest = Annotated[str, Field(pattern=REVISION_PATTERN)]
Nonce = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Shard = Annotated[str, Field(pattern="^[0-9a-f]{2}$")]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Bytes = Annotated[int, Field(ge=1, le=2**36)]
"""More than any bank has. Memory, disk and time are given for what a record says, so it is limited before."""


class NewerRecordError(DamageError):
    """The record was written by a newer server. It must not be replaced."""


class SharedRecord(Record):
    """A record of version 1 of a shared store."""

    VERSION = FORMAT_VERSION
    _READABLE = "version 1"


class StoredFile(RecordPart):
    """An object that is named by the SHA-256 of its bytes."""

    digest: Digest
    size_bytes: Bytes


class StoredBank(StoredFile):
    """A bank file, and the shapes of its arrays."""

    image_count: Annotated[int, Field(ge=1, le=MAX_IMAGES)]
    height_px: Count
    width_px: Count
    vector_count: Count
    feature_dim: Count
    array_bytes: Bytes

    @property
    def described(self) -> DescribedBank:
        """The shapes alone."""
        shape = InputShape(self.height_px, self.width_px)
        return DescribedBank(self.image_count, shape, self.vector_count, self.feature_dim, self.array_bytes)


def _checked_manifest(file: StoredFile) -> StoredFile:
    if file.size_bytes > MAX_MANIFEST_BYTES:
        raise ValueError(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes")
    return file


class StoredRevision(RecordPart):
    """A revision: where its content is, and what it is in short."""

    revision: Revision
    update_time: UtcTime
    operation: ReferenceOperation | None
    parent: Revision | None  # the revision that was current before; None: there was none
    bank: StoredBank
    manifest: Annotated[StoredFile, AfterValidator(_checked_manifest)]
    options: ReferenceOptions
    calibration: Calibration  # without the list of normal scores
    sensitivity: Annotated[float, AfterValidator(checked_sensitivity)]


class SharedPointer(SharedRecord):
    """Which revision of a reference is current, and which one is kept besides."""

    NAME = "pointer"
    reference_id: str
    nonce: Nonce
    replaced_nonce: Nonce | None  # of the pointer or the tombstone that this one replaced
    create_time: UtcTime
    current: StoredRevision
    previous: StoredRevision | None

    @model_validator(mode="after")
    def _check_previous(self) -> SharedPointer:
        if self.previous is not None and self.previous.revision == self.current.revision:
            raise ValueError("previous is the current revision")
        return self

    @property
    def revisions(self) -> tuple[StoredRevision, ...]:
        """The revisions that are kept."""
        return (self.current,) if self.previous is None else (self.current, self.previous)

    @property
    def kept(self) -> Revision | None:
        """The revision that is kept besides the current one."""
        return None if self.previous is None else self.previous.revision


class Tombstone(SharedRecord):
    """That a reference was deleted."""

    NAME = "tombstone"
    reference_id: str
    nonce: Nonce
    replaced_nonce: Nonce | None
    deleted: Literal[True]
    delete_time: UtcTime


class ShardEntry(RecordPart):
    """What the pointer of a reference said when it was read."""

    revision: Revision | None  # None: the reference was deleted
    nonce: Nonce  # of the pointer or tombstone
    e_tag: str | None
    version: str | None


class IndexShard(SharedRecord):
    """The references whose ids have this first byte of their SHA-256."""

    NAME = "shard of the index"
    shard: Shard
    nonce: Nonce
    references: dict[str, ShardEntry]


class IndexRoot(SharedRecord):
    """The nonce of every shard that exists."""

    NAME = "root of the index"
    nonce: Nonce
    shards: dict[Shard, Nonce]


class Lease(SharedRecord):
    """Who does some work for the whole store, and when it was done last."""

    NAME = "lease"
    nonce: Nonce
    holder: Nonce
    until_time: UtcTime
    done_time: UtcTime | None


RecordT = TypeVar("RecordT", bound=SharedRecord)


def decode_shared(kind: type[RecordT], data: bytes) -> RecordT:
    """A record of this kind.

    Raises:
        NewerRecordError: a newer server wrote it.
        DamageError: the bytes are not such a record.
    """
    version = version_in(data)
    if type(version) is int and version > FORMAT_VERSION:
        raise NewerRecordError(f"its {kind.NAME} has format version {version}; this server reads version 1 only")
    return decode_record(kind, data)
