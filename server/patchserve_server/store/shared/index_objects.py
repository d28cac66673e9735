"""Reads and swaps the objects of the index: its root and its shards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from patchserve_server.domain.errors import InvalidInputError, StorageUnavailableError
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.damage import DamageError
from patchserve_server.store.objects.storage import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
    ObjectTooLargeError,
    Version,
)
from patchserve_server.store.records import check_values, encode_record
from patchserve_server.store.shared.keys import ROOT, shard_key
from patchserve_server.store.shared.records import (
    FORMAT_VERSION,
    MAX_ROOT_BYTES,
    MAX_SHARD_BYTES,
    MAX_SHARD_VALUES,
    IndexRoot,
    IndexShard,
    NewerRecordError,
    ShardEntry,
    decode_shared,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of a reference."""

    revision: Revision | None  # None: it was deleted
    nonce: str  # of its pointer or tombstone
    version: Version  # of that object


Entries = Mapping[ReferenceId, Entry]


@dataclass(frozen=True, slots=True, eq=False)
class ShardContent:
    """What an intact shard says."""

    nonce: str
    entries: Entries


@dataclass(frozen=True, slots=True, eq=False)
class FoundShard:
    """A shard as it is stored."""

    content: ShardContent | None  # None: it is missing or damaged
    version: Version | None  # None: it is missing

    @property
    def entries(self) -> Entries:
        return MappingProxyType({}) if self.content is None else self.content.entries


@dataclass(frozen=True, slots=True, eq=False)
class FoundRoot:
    """The root as it is stored."""

    shards: Mapping[str, str] | None  # shard -> its nonce; None: the root is missing or damaged
    version: Version | None  # None: it is missing


DecodeShard = Callable[[str, bytes], ShardContent]


def decode_shard(shard: str, data: bytes) -> ShardContent:
    """What these bytes of a shard say.

    Raises:
        DamageError: they are none, or of another shard.
    """
    check_values(data, IndexShard.NAME, MAX_SHARD_VALUES)
    record = decode_shared(IndexShard, data)
    if record.shard != shard:
        raise DamageError("its shard of the index is another one")
    try:
        entries = {ReferenceId(name): _entry(entry) for name, entry in record.references.items()}
    except InvalidInputError as error:
        raise DamageError(f"its shard of the index has an id that is none: {error.message}") from None
    return ShardContent(record.nonce, entries)


def _entry(entry: ShardEntry) -> Entry:
    try:
        version = Version(entry.e_tag, entry.version)
    except ValueError as error:
        raise DamageError(f"its shard of the index has an entry without a version: {error}") from None
    return Entry(None if entry.revision is None else Revision(entry.revision), entry.nonce, version)


def _written(entry: Entry) -> ShardEntry:
    version = entry.version
    return ShardEntry(revision=entry.revision, nonce=entry.nonce, e_tag=version.e_tag, version=version.version)


class IndexObjects:
    """The objects of the index.

    Args:
        storage: has them.
        decode: of a shard. A simulation of many replicas gives one that remembers.
    """

    def __init__(self, storage: ObjectStorage, decode: DecodeShard = decode_shard) -> None:
        self._storage = storage
        self._decode = decode
        self._decoding = threading.Lock()  # one shard at a time: to decode it takes ten times its memory, and the GIL

    def root(self, unless: Version | None = None) -> FoundRoot | None:
        """The root; None: it is still at the version `unless`.

        Raises:
            StorageUnavailableError: it cannot be read, or a newer server wrote it.
        """
        try:
            stored = self._storage.get(ROOT, max_bytes=MAX_ROOT_BYTES, unless=unless)
        except ObjectMissingError:
            return FoundRoot(None, None)
        except ObjectTooLargeError:
            return FoundRoot(None, self._version_of(ROOT))
        if stored is None:
            return None
        try:
            return FoundRoot(decode_shared(IndexRoot, stored.data).shards, stored.version)
        except NewerRecordError as error:
            raise _newer(error) from error
        except DamageError:
            return FoundRoot(None, stored.version)

    def shard(self, shard: str, unless: Version | None = None) -> FoundShard | None:
        """A shard; None: it is still at the version `unless`.

        Raises:
            StorageUnavailableError: it cannot be read, or a newer server wrote it.
        """
        key = shard_key(shard)
        try:
            stored = self._storage.get(key, max_bytes=MAX_SHARD_BYTES, unless=unless)
        except ObjectMissingError:
            return FoundShard(None, None)
        except ObjectTooLargeError:
            return FoundShard(None, self._version_of(key))
        if stored is None:
            return None
        try:
            with self._decoding:
                return FoundShard(self._decode(shard, stored.data), stored.version)
        except NewerRecordError as error:
            raise _newer(error) from error
        except DamageError:
            return FoundShard(None, stored.version)

    def _version_of(self, key: str) -> Version | None:
        found = self._storage.find(key)
        return None if found is None else found.version

    def swap_root(self, found: FoundRoot, shards: Mapping[str, str], nonce: str) -> bool:
        """Puts a root in the place of what was found; False: somebody else was faster.

        Raises:
            StorageUnavailableError: it cannot be written.
        """
        record = IndexRoot(format_version=FORMAT_VERSION, nonce=nonce, shards=dict(sorted(shards.items())))
        return self._swap(ROOT, encode_record(record), found.version) is not None

    def swap_shard(self, shard: str, found: FoundShard, content: ShardContent) -> Version | None:
        """Puts a shard in the place of what was found; None: somebody else was faster.

        Raises:
            StorageUnavailableError: it cannot be written, or would be too large.
        """
        record = IndexShard(
            format_version=FORMAT_VERSION,
            shard=shard,
            nonce=content.nonce,
            references={str(name): _written(entry) for name, entry in sorted(content.entries.items())},
        )
        data = encode_record(record)
        if len(data) > MAX_SHARD_BYTES:  # nobody would read it
            raise StorageUnavailableError("The index of the store has no room for more references.")
        return self._swap(shard_key(shard), data, found.version)

    def _swap(self, key: str, data: bytes, version: Version | None) -> Version | None:
        # Whoever reads the index reads what it is made from, so a swap that may have been done counts as one that
        # was not: the next attempt finds out.
        try:
            return self._storage.create(key, data) if version is None else self._storage.replace(key, data, version)
        except (ObjectExistsError, ObjectChangedError):
            return None


def _newer(error: NewerRecordError) -> StorageUnavailableError:
    return StorageUnavailableError(f"The store cannot be used by this server: {error}. Update this server.")
