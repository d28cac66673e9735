"""Finds out whether a service keeps the conditions of writes. One that ignores them would lose revisions unseen."""

from __future__ import annotations

import secrets
from contextlib import suppress

from patchserve_server.domain.errors import StartupError, StorageUnavailableError
from patchserve_server.store.objects.storage import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
)

_PREFIX = "probe/"


def probe(storage: ObjectStorage) -> None:
    """Create an object twice, swap it with an old version, read it. What is written for that is deleted again.

    Raises:
        StartupError: the service ignores a condition, or returns something else than what was written.
        StorageUnavailableError: it cannot be reached, or does not permit this.
    """
    key = f"{_PREFIX}{secrets.token_hex(8)}"
    try:
        _probe(storage, key)
    finally:
        with suppress(StorageUnavailableError):  # the first error is the one to tell
            storage.delete(key)


def _probe(storage: ObjectStorage, key: str) -> None:
    first, second, third = (secrets.token_bytes(16) for _ in range(3))
    old = storage.create(key, first)
    with suppress(ObjectExistsError):
        storage.create(key, third)
        raise _refused(storage, "it replaces an object that must not exist (it ignores If-None-Match)")
    try:
        new = storage.replace(key, second, old)
    except ObjectChangedError:
        raise _refused(storage, "it does not know the version that it has just written") from None
    with suppress(ObjectChangedError):
        storage.replace(key, third, old)
        raise _refused(storage, "it replaces an object that has changed (it ignores If-Match)")
    try:
        stored = storage.get(key, max_bytes=len(second))
    except ObjectMissingError:
        stored = None
    if stored is None or stored.data != second or not stored.version.is_same(new):
        raise _refused(storage, "it does not return what was written last")


def _refused(storage: ObjectStorage, what: str) -> StartupError:
    return StartupError(
        f"The service of the store {storage.name} ({storage.service}) cannot be used: {what}. Two servers would "
        "overwrite the changes of each other. docs/stores.md lists services that keep conditions."
    )
