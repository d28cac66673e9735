"""Shared stores on one bucket in memory, with a clock that only tests move, and a fault at any request."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from fakes.faulty_objects import FaultyObjectStorage
from patchserve_server.domain.errors import StorageUnavailableError
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.objects import MemoryObjectStorage, ObjectStorage
from patchserve_server.store.shared import DigestCache, SharedReferenceStore, Surroundings
from patchserve_server.store.shared.index_objects import IndexObjects
from patchserve_server.store.shared.index_view import IndexView

T = TypeVar("T")


class KilledError(BaseException):
    """The process was killed at this request."""


@dataclass
class Clock:
    """A clock that sleepers move."""

    now_s: float = 0.0

    def sleep(self, time_s: float) -> None:
        self.now_s += time_s

    def utc_now(self) -> datetime:
        return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now_s)

    def surroundings(self, seed: int) -> Surroundings:
        return Surroundings(
            monotonic_s=lambda: self.now_s, utc_now=self.utc_now, sleep=self.sleep, rng=random.Random(seed)
        )


@dataclass(frozen=True)
class Fault:
    """What happens at one request."""

    at: int  # of the requests from now on: 0 is the next one
    is_after: bool  # the request has done its work
    error: Callable[[], BaseException]


class BreakingObjectStorage(FaultyObjectStorage):
    """Breaks at one request. What happens between two requests is told by `before_call`."""

    fault: Fault | None = None
    requests: int = 0  # since the fault was set

    def break_at(self, fault: Fault | None) -> None:
        self.fault, self.requests = fault, 0

    def _call(self, method: str, key: str, work: Callable[[], T]) -> T:
        number, self.requests = self.requests, self.requests + 1
        fault = self.fault if self.fault is not None and self.fault.at == number else None
        self.calls[method] += 1
        self.keys_of[method].append(key)
        self.before_call(method, key)
        if fault is not None and not fault.is_after:
            raise fault.error()
        result = work()
        if fault is not None:
            raise fault.error()
        return result


def lost_answer() -> StorageUnavailableError:
    return StorageUnavailableError("The answer of the store was lost.", retry_after_s=1.0)


@dataclass
class Server:
    """One server's store, and what it has learned by polls."""

    bucket: BreakingObjectStorage
    store: SharedReferenceStore
    known: dict[ReferenceId, Revision] = field(default_factory=dict)

    def poll(self) -> None:
        for reference_id, revision in self.store.poll().items():
            if revision is None:
                self.known.pop(reference_id, None)
            else:
                self.known[reference_id] = revision


def open_server(bucket: ObjectStorage, cache: Path, clock: Clock, seed: int = 0) -> Server:
    breaking = BreakingObjectStorage(bucket)
    return Server(breaking, SharedReferenceStore(breaking, DigestCache(cache, 2**24), clock.surroundings(seed)))


def indexed(bucket: ObjectStorage) -> dict[ReferenceId, Revision]:
    """What the index says to a server that has just started."""
    changed: dict[ReferenceId, Revision | None] = {}
    IndexView(IndexObjects(bucket)).refresh(changed)
    return {name: revision for name, revision in changed.items() if revision is not None}


def memory_bucket(clock: Clock) -> MemoryObjectStorage:
    return MemoryObjectStorage(now=clock.utc_now)
