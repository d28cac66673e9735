"""Reads and swaps the pointers of references: the only objects that say what is stored."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from patchserve_server.domain.errors import ReferenceDamagedError, StorageUnavailableError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.damage import DamageError
from patchserve_server.store.objects.storage import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
    ObjectTooLargeError,
    Version,
)
from patchserve_server.store.records import encode_record
from patchserve_server.store.shared.keys import pointer_key
from patchserve_server.store.shared.records import (
    MAX_POINTER_BYTES,
    NewerRecordError,
    SharedPointer,
    Tombstone,
    decode_shared,
)


@dataclass(frozen=True, slots=True, eq=False)
class FoundPointer:
    """What is stored under the id of a reference."""

    reference_id: ReferenceId
    record: SharedPointer | Tombstone | DamageError | None  # None: nothing
    version: Version | None  # None: nothing is stored

    @property
    def pointer(self) -> SharedPointer | None:
        """The pointer, if it is intact."""
        return self.record if isinstance(self.record, SharedPointer) else None

    @property
    def nonce(self) -> str | None:
        """The nonce of the pointer or the tombstone, if it is intact."""
        return self.record.nonce if isinstance(self.record, SharedPointer | Tombstone) else None

    @property
    def is_there(self) -> bool:
        """Whether there is a reference, intact or damaged."""
        return isinstance(self.record, SharedPointer | DamageError)


class Pointers:
    """The pointers of a store."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage

    def read(self, reference_id: ReferenceId) -> FoundPointer:
        """What is stored now.

        Raises:
            StorageUnavailableError: it cannot be read.
        """
        try:
            stored = self._storage.get(pointer_key(reference_id), max_bytes=MAX_POINTER_BYTES)
        except ObjectMissingError:
            return FoundPointer(reference_id, None, None)
        except ObjectTooLargeError:
            found = self._storage.find(pointer_key(reference_id))
            damage = DamageError(f"its pointer is larger than {MAX_POINTER_BYTES} bytes")
            return FoundPointer(reference_id, damage if found else None, found.version if found else None)
        assert stored is not None  # noqa: S101 - it is None for a conditional request only
        return FoundPointer(reference_id, _decoded(reference_id, stored.data), stored.version)

    def swap(self, found: FoundPointer, new: SharedPointer | Tombstone) -> bool:
        """Puts a record in the place of what was found: the commit of a change.

        Returns:
            Whether it was done; False: somebody else was first.

        Raises:
            ReferenceDamagedError: a newer server wrote what is there.
            StorageUnavailableError: it cannot be written, or it is not known whether it was.
        """
        key = pointer_key(found.reference_id)
        if isinstance(found.record, NewerRecordError):
            message = f'The stored reference "{found.reference_id}" cannot be changed by this server: {found.record}.'
            raise ReferenceDamagedError(found.reference_id, message)
        try:
            if found.version is None:
                self._storage.create(key, encode_record(new))
            else:
                self._storage.replace(key, encode_record(new), found.version)
        except (ObjectExistsError, ObjectChangedError) as error:
            is_lost = isinstance(error, ObjectChangedError) and error.may_have_been_written
            return self._was_written(found, new, is_lost=is_lost)
        return True

    def _was_written(self, found: FoundPointer, new: SharedPointer | Tombstone, *, is_lost: bool) -> bool:
        """Whether the record was there, although another one is there now. It is told by the nonces.

        Args:
            found: what was there before.
            new: the record.
            is_lost: whether an answer was lost, so that the record may have been there.
        """
        record = self.read(found.reference_id).record
        if isinstance(record, SharedPointer | Tombstone):
            if new.nonce in (record.nonce, record.replaced_nonce):
                return True
            if found.nonce is not None and record.replaced_nonce == found.nonce:
                return False  # it was replaced by this one, and not by ours
        if not is_lost:
            return False
        message = "The answer of the store was lost, and others have changed the reference since."
        raise StorageUnavailableError(message, retry_after_s=1.0)


def _decoded(reference_id: ReferenceId, data: bytes) -> SharedPointer | Tombstone | DamageError:
    is_deleted = False
    with suppress(ValueError, RecursionError):
        document = json.loads(data)
        is_deleted = isinstance(document, dict) and "deleted" in document
    try:
        record = decode_shared(Tombstone, data) if is_deleted else decode_shared(SharedPointer, data)
    except DamageError as error:
        return error
    if record.reference_id != reference_id:
        return DamageError("its pointer belongs to another reference")
    return record
