"""Objects in the memory of one process, for trials and tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from patchserve_server.store.objects.storage import (
    ListedObject,
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectTooLargeError,
    StoredObject,
    Version,
)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    data: bytes
    version: Version
    modified_time: datetime


class MemoryObjectStorage:
    """An ObjectStorage in memory. `now` is the clock of its service."""

    service = "memory"

    def __init__(self, name: str = "memory://", now: Callable[[], datetime] = _now) -> None:
        self._name, self._now = name, now
        self._objects: dict[str, _Object] = {}
        self._writes = 0
        self._changing = threading.Lock()

    @property
    def name(self) -> str:
        return self._name

    def get(self, key: str, *, max_bytes: int, unless: Version | None = None) -> StoredObject | None:
        stored = self._get(key)
        if stored.version == unless:
            return None
        if len(stored.data) > max_bytes:
            raise ObjectTooLargeError(key, max_bytes)
        return StoredObject(stored.data, stored.version)

    def get_to_file(self, key: str, path: Path, *, max_bytes: int) -> None:
        stored = self._get(key)
        if len(stored.data) > max_bytes:
            raise ObjectTooLargeError(key, max_bytes)
        path.write_bytes(stored.data)

    def find(self, key: str) -> ListedObject | None:
        stored = self._objects.get(key)
        return None if stored is None else _listed(key, stored)

    def create(self, key: str, data: bytes) -> Version:
        with self._changing:
            if key in self._objects:
                raise ObjectExistsError(key)
            return self._set(key, data)

    def create_from_file(self, key: str, path: Path) -> Version:
        return self.create(key, path.read_bytes())

    def replace(self, key: str, data: bytes, version: Version) -> Version:
        with self._changing:
            stored = self._objects.get(key)
            if stored is None or stored.version != version:
                raise ObjectChangedError(key)
            return self._set(key, data)

    def put(self, key: str, data: bytes) -> Version:
        with self._changing:
            return self._set(key, data)

    def put_from_file(self, key: str, path: Path) -> Version:
        return self.put(key, path.read_bytes())

    def copy(self, key: str, new_key: str) -> None:
        with self._changing:
            self._set(new_key, self._get(key).data)

    def delete(self, key: str) -> None:
        with self._changing:
            self._objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        with self._changing:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
            return iter([_listed(key, self._objects[key]) for key in keys])

    def close(self) -> None:
        """Nothing is open."""

    def _get(self, key: str) -> _Object:
        stored = self._objects.get(key)
        if stored is None:
            raise ObjectMissingError(key)
        return stored

    def _set(self, key: str, data: bytes) -> Version:
        self._writes += 1
        version = Version(e_tag=str(self._writes))
        self._objects[key] = _Object(bytes(data), version, self._now())
        return version


def _listed(key: str, stored: _Object) -> ListedObject:
    return ListedObject(key, len(stored.data), stored.modified_time, stored.version)
