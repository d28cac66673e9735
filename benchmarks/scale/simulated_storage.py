"""A bucket as a server sees it: slow, throttled, and with faults. It counts what it is asked and what that costs."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from patchserve_server.domain.errors import StorageUnavailableError
from patchserve_server.store.objects import ListedObject, MemoryObjectStorage, ObjectMissingError, StoredObject, Version
from patchserve_server.store.objects.retrying import RetryPolicy
from scale.timeline import Timeline

_Result = TypeVar("_Result")

KEYS_PER_PAGE = 1000
USD_PER_READ, USD_PER_WRITE = (
    0.4e-6,
    5e-6,
)  # Amazon S3 Standard, us-east-1; reads: GET and HEAD; writes: PUT, LIST, COPY
USD_PER_MONTH_AND_GIB = 0.023


@dataclass(frozen=True)
class Service:
    """How a bucket answers. The numbers are those of a large provider in the same region."""

    read_s: float = 0.015  # median
    write_s: float = 0.03  # median
    spread: float = 0.5  # of the logarithm: one in a hundred takes three times the median
    bytes_per_s: float = 50e6
    faults: float = 0.0  # the share of requests that fail before or after they are done
    reads_per_s: float = 5500  # of one prefix, more are throttled
    writes_per_s: float = 3500


@dataclass
class Bill:
    """What was asked."""

    reads: int = 0
    unchanged: int = 0  # of the reads: conditional ones, which were answered without content
    writes: int = 0
    lists: int = 0
    throttled: int = 0
    failed: int = 0  # for good: they are not tried again
    bytes_read: int = 0
    bytes_written: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)

    @property
    def usd(self) -> float:
        """Of the requests. Bytes within a region cost nothing."""
        return self.reads * USD_PER_READ + (self.writes + self.lists) * USD_PER_WRITE


class Bucket:
    """What all servers share: the objects, the bill, and the limits of the service."""

    def __init__(self, timeline: Timeline, service: Service, seed: int) -> None:
        self.timeline, self.service = timeline, service
        self.objects = MemoryObjectStorage("s3://simulated/store", timeline.utc_now)
        self.random = random.Random(seed)
        self.bill = Bill()
        self._recent: dict[bool, deque[float]] = {True: deque(), False: deque()}

    def is_throttled(self, *, is_write: bool) -> bool:
        """Whether this request is one too many within a second."""
        recent, now_s = self._recent[is_write], self.timeline.now_s
        while recent and recent[0] <= now_s - 1:
            recent.popleft()
        if len(recent) >= (self.service.writes_per_s if is_write else self.service.reads_per_s):
            return True
        recent.append(now_s)
        return False


class SimulatedStorage:
    """Implements `ObjectStorage` for one server. Requests are tried again as the real one does it."""

    name, service = "s3://simulated/store", "simulated"

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._policy = RetryPolicy()

    def get(self, key: str, *, max_bytes: int, unless: Version | None = None) -> StoredObject | None:
        def read() -> StoredObject | None:
            found = self._bucket.objects.get(key, max_bytes=max_bytes, unless=unless)
            if found is None:
                self._bucket.bill.unchanged += 1
            else:
                self._bucket.bill.bytes_read += len(found.data)
                self._bucket.timeline.sleep(len(found.data) / self._bucket.service.bytes_per_s)
            return found

        return self._request(key, read)

    def get_to_file(self, key: str, path: Path, *, max_bytes: int) -> None:
        found = self.get(key, max_bytes=max_bytes)
        assert found is not None
        path.write_bytes(found.data)

    def find(self, key: str) -> ListedObject | None:
        return self._request(key, lambda: self._bucket.objects.find(key))

    def create(self, key: str, data: bytes) -> Version:
        return self._request(key, lambda: self._bucket.objects.create(key, data), written=len(data))

    def create_from_file(self, key: str, path: Path) -> Version:
        return self.create(key, path.read_bytes())

    def replace(self, key: str, data: bytes, version: Version) -> Version:
        return self._request(key, lambda: self._bucket.objects.replace(key, data, version), written=len(data))

    def put(self, key: str, data: bytes) -> Version:
        return self._request(key, lambda: self._bucket.objects.put(key, data), written=len(data))

    def put_from_file(self, key: str, path: Path) -> Version:
        return self.put(key, path.read_bytes())

    def copy(self, key: str, new_key: str) -> None:
        self._request(key, lambda: self._bucket.objects.copy(key, new_key), written=0)

    def delete(self, key: str) -> None:
        self._request(key, lambda: self._bucket.objects.delete(key), written=0)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        listed = list(self._bucket.objects.list(prefix))
        for start in range(0, max(1, len(listed)), KEYS_PER_PAGE):
            page = listed[start : start + KEYS_PER_PAGE]
            self._bucket.bill.lists += 1
            yield from self._request(prefix, lambda page=page: page, is_list=True)  # type: ignore[misc]

    def close(self) -> None:
        """Nothing is open."""

    def _request(
        self, key: str, work: Callable[[], _Result], *, written: int | None = None, is_list: bool = False
    ) -> _Result:
        """One request, and again until the deadline if the service fails.

        A swap that may have been done counts as lost: whoever swapped reads again.
        """
        timeline, end_s, wait_s = self._bucket.timeline, self._bucket.timeline.now_s + self._policy.deadline_s, 0.0
        while True:
            timeline.sleep(wait_s)
            try:
                return self._attempt(key, work, written, is_list=is_list)
            except _TransientError:
                wait_s = min(self._policy.longest_wait_s, max(self._policy.first_wait_s, 2 * wait_s))
                wait_s *= self._bucket.random.uniform(0.5, 1)
                if timeline.now_s + wait_s > end_s:
                    self._bucket.bill.failed += 1
                    raise StorageUnavailableError("The store does not answer.", retry_after_s=2.0) from None

    def _attempt(self, key: str, work: Callable[[], _Result], written: int | None, *, is_list: bool) -> _Result:
        bucket, service = self._bucket, self._bucket.service
        is_write = written is not None
        bucket.bill.by_kind[f"{'write' if is_write else 'read'} {key.split('/', maxsplit=1)[0]}"] += 1
        if is_write:
            bucket.bill.writes += 1
            bucket.bill.bytes_written += written or 0
        elif not is_list:
            bucket.bill.reads += 1
        if bucket.is_throttled(is_write=is_write):
            bucket.bill.throttled += 1
            raise _TransientError
        latency_s = (service.write_s if is_write else service.read_s) * bucket.random.lognormvariate(0, service.spread)
        bucket.timeline.sleep(latency_s / 2 + (written or 0) / service.bytes_per_s)
        chance = bucket.random.random()
        if chance < service.faults / 2:
            raise _TransientError  # before it is done
        try:
            result = work()
        except ObjectMissingError:
            bucket.timeline.sleep(latency_s / 2)
            raise
        bucket.timeline.sleep(latency_s / 2)
        if chance < service.faults:
            raise _TransientError  # its answer is lost
        return result


class _TransientError(Exception):
    """A request failed and may succeed when it is tried again."""
