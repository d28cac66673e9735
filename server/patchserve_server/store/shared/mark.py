"""The mark that says that a prefix of a bucket is a store, of which format, and which one."""

from __future__ import annotations

from contextlib import suppress

from patchserve_server.domain.errors import StartupError
from patchserve_server.store.damage import DamageError
from patchserve_server.store.objects.storage import ObjectExistsError, ObjectMissingError, ObjectStorage
from patchserve_server.store.records import encode_record
from patchserve_server.store.shared.keys import MARK
from patchserve_server.store.shared.records import FORMAT_VERSION, MAX_SMALL_BYTES, Mark, decode_shared
from patchserve_server.store.shared.surroundings import Surroundings


def require_mark(storage: ObjectStorage, surroundings: Surroundings) -> str:
    """The random id of the store. A store that has none yet gets one.

    Raises:
        StartupError: it is the store of a newer server, or of something else.
        StorageUnavailableError: it cannot be read or written.
    """
    while True:
        try:
            stored = storage.get(MARK, max_bytes=MAX_SMALL_BYTES)
        except ObjectMissingError:
            mark = Mark(format_version=FORMAT_VERSION, store_id=surroundings.nonce())
            with suppress(ObjectExistsError):
                storage.create(MARK, encode_record(mark))
            continue
        assert stored is not None  # noqa: S101 - it is None for a conditional request only
        try:
            return decode_shared(Mark, stored.data).store_id
        except DamageError as error:
            raise StartupError(f"The store {storage.name} cannot be used: {error}. Choose another prefix.") from error
