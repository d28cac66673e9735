"""`patchserve.json`: the format of a store on object storage, its id, and the services whose conditions were proven."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from typing import Any, Final

from patchserve_server.domain.errors import StartupError
from patchserve_server.store.objects.probe import probe
from patchserve_server.store.objects.storage import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
    ObjectTooLargeError,
    StoredObject,
)

KEY: Final = "patchserve.json"
FORMAT_VERSION: Final = 1
_MAX_BYTES: Final = 16_384
_MAX_SERVICES: Final = 16


@dataclass(frozen=True, slots=True)
class StoreFile:
    """What the file says."""

    store_id: str
    proven_services: tuple[str, ...]  # the newest last

    def encode(self) -> bytes:
        """The bytes of the file, with a nonce: each write is another version."""
        document = {
            "format_version": FORMAT_VERSION,
            "store_id": self.store_id,
            "proven_services": list(self.proven_services),
            "nonce": secrets.token_hex(16),
        }
        return json.dumps(document, indent=2).encode()


def open_store_file(storage: ObjectStorage) -> StoreFile:
    """The file of this store, which is created in an empty one. One request, where the service was proven before.

    Raises:
        StartupError: a newer version wrote the store; the file is damaged; or the service ignores conditions.
        StorageUnavailableError: it cannot be read or written.
    """
    stored = _read(storage)
    if stored is not None:
        file = _decode(storage, stored.data)
        if storage.service in file.proven_services:
            return file
    probe(storage)
    while True:
        if stored is None:
            file = StoreFile(f"{secrets.token_hex(16)}", (storage.service,))
            try:
                storage.create(KEY, file.encode())
            except ObjectExistsError:
                stored = _read(storage)
            else:
                return file
        else:
            file = _decode(storage, stored.data)
            others = [service for service in file.proven_services if service != storage.service]
            file = replace(file, proven_services=(*others, storage.service)[-_MAX_SERVICES:])
            try:
                storage.replace(KEY, file.encode(), stored.version)
            except ObjectChangedError:
                stored = _read(storage)
            else:
                return file


def read_store_file(storage: ObjectStorage) -> StoreFile | None:
    """The file of this store; None: there is no store. Writes nothing.

    Raises:
        StartupError: a newer version wrote the store, or the file is damaged.
        StorageUnavailableError: it cannot be read.
    """
    stored = _read(storage)
    return None if stored is None else _decode(storage, stored.data)


def _read(storage: ObjectStorage) -> StoredObject | None:
    try:
        return storage.get(KEY, max_bytes=_MAX_BYTES)
    except ObjectMissingError:
        return None
    except ObjectTooLargeError:
        raise _damaged(storage) from None


def _decode(storage: ObjectStorage, data: bytes) -> StoreFile:
    try:
        document: Any = json.loads(data)
        version, store_id, services = (document[name] for name in ("format_version", "store_id", "proven_services"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(storage) from None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StartupError(
            f"The store {storage.name} has format version {version}, which a newer version wrote; this one reads up to "
            f"{FORMAT_VERSION}. Update this server."
        )
    is_valid = version == FORMAT_VERSION and isinstance(store_id, str) and isinstance(services, list)
    if not is_valid or not all(isinstance(service, str) for service in services):
        raise _damaged(storage)
    return StoreFile(store_id, tuple(services))


def _damaged(storage: ObjectStorage) -> StartupError:
    return StartupError(
        f"The file {KEY} of the store {storage.name} is damaged, or this prefix belongs to something else. Choose "
        "another prefix, or restore the file."
    )
