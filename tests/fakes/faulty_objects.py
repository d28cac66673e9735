"""An ObjectStorage that fails, seeded: before or after the work is done, and slowly. It counts what it is asked."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from patchserve_server.domain.errors import StorageUnavailableError
from patchserve_server.store.objects import ListedObject, ObjectStorage, StoredObject, Version

_Result = TypeVar("_Result")
METHODS = frozenset({"get", "find", "create", "replace", "put", "copy", "delete", "list"})


@dataclass(frozen=True)
class Faults:
    """How calls fail. A method that reads or writes a file counts as the one without a file."""

    before: float = 0.0  # the share that does nothing and fails: refused, throttled, reset
    after: float = 0.0  # the share that does its work and fails: the answer is lost
    delay_s: tuple[float, float] = (0.0, 0.0)  # the shortest and the longest one
    of: frozenset[str] = METHODS


class FaultyObjectStorage:
    """Wraps an ObjectStorage. `faults` may be changed at any time; `Faults(before=1)` is a service that is away."""

    def __init__(self, storage: ObjectStorage, faults: Faults | None = None, seed: int = 0) -> None:
        self.storage, self.faults = storage, faults or Faults()
        self.calls: Counter[str] = Counter()
        self.keys_of: defaultdict[str, list[str]] = defaultdict(list)  # by method, in the order of calls
        self.before_call: Callable[[str, str], None] = lambda _method, _key: None
        """Told the method and the key before each call: a test lets something else happen there."""
        self._random, self._counting = random.Random(seed), threading.Lock()

    @property
    def name(self) -> str:
        return self.storage.name

    @property
    def service(self) -> str:
        return self.storage.service

    def get(self, key: str, *, max_bytes: int, unless: Version | None = None) -> StoredObject | None:
        return self._call("get", key, lambda: self.storage.get(key, max_bytes=max_bytes, unless=unless))

    def get_to_file(self, key: str, path: Path, *, max_bytes: int) -> None:
        self._call("get", key, lambda: self.storage.get_to_file(key, path, max_bytes=max_bytes))

    def find(self, key: str) -> ListedObject | None:
        return self._call("find", key, lambda: self.storage.find(key))

    def create(self, key: str, data: bytes) -> Version:
        return self._call("create", key, lambda: self.storage.create(key, data))

    def create_from_file(self, key: str, path: Path) -> Version:
        return self._call("create", key, lambda: self.storage.create_from_file(key, path))

    def replace(self, key: str, data: bytes, version: Version) -> Version:
        return self._call("replace", key, lambda: self.storage.replace(key, data, version))

    def put(self, key: str, data: bytes) -> Version:
        return self._call("put", key, lambda: self.storage.put(key, data))

    def put_from_file(self, key: str, path: Path) -> Version:
        return self._call("put", key, lambda: self.storage.put_from_file(key, path))

    def copy(self, key: str, new_key: str) -> None:
        self._call("copy", key, lambda: self.storage.copy(key, new_key))

    def delete(self, key: str) -> None:
        self._call("delete", key, lambda: self.storage.delete(key))

    def list(self, prefix: str) -> Iterator[ListedObject]:
        return self._call("list", prefix, lambda: self.storage.list(prefix))

    def close(self) -> None:
        self.storage.close()

    def _call(self, method: str, key: str, work: Callable[[], _Result]) -> _Result:
        with self._counting:
            self.calls[method] += 1
            self.keys_of[method].append(key)
            faults, chance = self.faults, self._random.random()
            delay_s = self._random.uniform(*faults.delay_s)
        self.before_call(method, key)
        if delay_s:
            time.sleep(delay_s)
        if method not in faults.of:
            return work()
        if chance < faults.before:
            raise StorageUnavailableError("The store is away.", retry_after_s=2.0)
        result = work()
        if chance < faults.before + faults.after:
            raise StorageUnavailableError("The answer of the store was lost.", retry_after_s=2.0)
        return result
