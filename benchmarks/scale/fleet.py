"""A thousand servers: each polls as a server does, and some of them change references."""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from fakes.references import make_reference

from patchserve_server.domain.errors import PatchserveError, StorageUnavailableError
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.store_sync import JITTER, POLL_INTERVAL_S
from patchserve_server.store.objects import Version
from patchserve_server.store.shared.cache import DigestCache
from patchserve_server.store.shared.index_objects import (
    Entry,
    FoundRoot,
    FoundShard,
    IndexObjects,
    ShardContent,
    decode_shard,
)
from patchserve_server.store.shared.index_writer import IndexWriter
from patchserve_server.store.shared.keys import ALL_SHARDS, shard_of
from patchserve_server.store.shared.pointers import Pointers
from patchserve_server.store.shared.store import SharedReferenceStore
from patchserve_server.store.shared.surroundings import Surroundings
from patchserve_server.store.shared.synchronizing import Synchronizing
from scale.simulated_storage import Bill, Bucket, Service, SimulatedStorage
from scale.timeline import Timeline

_CACHE_BYTES = 2**30


@dataclass
class Change:
    """A load on one server, and when the others knew of it."""

    answered_after_s: float  # from its begin
    answered_at_s: float
    revision: str
    known_after_s: list[float] = field(default_factory=list)  # from its answer, of each server


@dataclass
class Figures:
    """What a simulation saw."""

    servers: int
    references: int
    changes_per_s: float
    seconds: float
    bill: Bill
    answered: list[float]  # seconds that a change took
    failed: int  # changes
    known: list[float]  # seconds from a change's answer until the last server knew it

    @staticmethod
    def percentile(values: list[float], percent: int) -> float:
        if len(values) < 2:
            return values[0] if values else float("nan")
        return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


class Simulation:
    """Servers on one store. `reference_count` references are there before."""

    def __init__(self, *, servers: int, reference_count: int, service: Service | None = None, seed: int = 1) -> None:
        self.timeline = Timeline()
        self.bucket = Bucket(self.timeline, service or Service(), seed)
        self.changes: dict[ReferenceId, Change] = {}
        self.failed_changes = 0
        self._seed = seed
        self._servers = servers
        self.ready_after_s: list[float] = []  # the first poll of each server
        self._reference_count = reference_count
        self._decoded = lru_cache(maxsize=4096)(decode_shard)  # a thousand servers would decode the same bytes
        self._folder = tempfile.TemporaryDirectory()
        self._reference = make_reference()
        self._write_index(reference_count)

    def close(self) -> None:
        self._folder.cleanup()

    def run(self, *, changes_per_s: float, seconds: float = 60) -> Figures:
        """Servers that have polled before; changes begin, and it is measured."""
        first = self._synchronizing()
        self.timeline.begin(lambda: self._hear(first.poll()))
        self.timeline.run_until(20)
        for _ in range(self._servers):
            self.timeline.begin(lambda: self._serve(self._like(first)), after_s=self._uniform(POLL_INTERVAL_S))
        warm_up_s = self.timeline.now_s + 10
        self.timeline.run_until(warm_up_s)
        self.bucket.bill = Bill()
        if changes_per_s:
            self.timeline.begin(lambda: self._change_all(changes_per_s, warm_up_s + seconds))
        self.timeline.run_until(warm_up_s + seconds)
        bill, self.bucket.bill = self.bucket.bill, Bill()
        self.timeline.run_until(warm_up_s + seconds + 60)  # until everybody knows everything
        changes = self.changes.values()
        return Figures(
            servers=self._servers,
            references=self._reference_count,
            changes_per_s=changes_per_s,
            seconds=seconds,
            bill=bill,
            answered=[change.answered_after_s for change in changes],
            failed=self.failed_changes,
            known=[max(each.known_after_s) for each in changes if len(each.known_after_s) == self._servers],
        )

    @property
    def unknown_somewhere(self) -> int:
        """Changes that some server has never heard of."""
        return sum(len(change.known_after_s) != self._servers for change in self.changes.values())

    def _surroundings(self) -> Surroundings:
        timeline = self.timeline
        return Surroundings(timeline.monotonic_s, timeline.utc_now, timeline.sleep, self.bucket.random, timeline.each)

    def start_all(self, within_s: float) -> list[float]:
        """Servers that start, evenly spread: the seconds until each is ready."""
        for number in range(self._servers):
            self.timeline.begin(lambda: self._serve(self._synchronizing()), after_s=within_s * number / self._servers)
        while len(self.ready_after_s) < self._servers:
            self.timeline.run_until(self.timeline.now_s + 1)
        return self.ready_after_s

    def _synchronizing(self) -> Synchronizing:
        storage, surroundings = SimulatedStorage(self.bucket), self._surroundings()
        objects = IndexObjects(storage, self._decoded)
        writer = IndexWriter(storage, objects, Pointers(storage), surroundings)
        return Synchronizing(storage, objects, writer, surroundings)

    def _like(self, first: Synchronizing) -> Synchronizing:
        """Another server that knows what the first one knows: a thousand starts would take most of the time."""
        another = self._synchronizing()
        for name in ("_entries", "_nonces", "_root"):
            setattr(another._view, name, copy.copy(getattr(first._view, name)))  # noqa: SLF001 - saves 256,000 reads
        another._is_new = False  # noqa: SLF001 - as above
        return another

    def _serve(self, synchronizing: Synchronizing) -> None:
        begun_at_s, is_ready = self.timeline.now_s, False
        while True:
            with suppress(StorageUnavailableError):
                self._hear(synchronizing.poll())
                if not is_ready:
                    self.ready_after_s.append(self.timeline.now_s - begun_at_s)
                    is_ready = True
            self.timeline.sleep(POLL_INTERVAL_S * (1 + JITTER * self.bucket.random.random()))

    def _hear(self, changed: Mapping[ReferenceId, Revision | None]) -> None:
        for reference_id, revision in changed.items():
            change = self.changes.get(reference_id)
            if change is not None and change.revision == revision:
                change.known_after_s.append(max(0.0, self.timeline.now_s - change.answered_at_s))

    def _change_all(self, changes_per_s: float, end_s: float) -> None:
        """Changes at random moments, each on a server of its own."""
        number = 0
        while self.timeline.now_s < end_s:
            self.timeline.begin(lambda number=number: self._change(number))  # type: ignore[misc]
            number += 1
            self.timeline.sleep(self.bucket.random.expovariate(changes_per_s))

    def _change(self, number: int) -> None:
        reference = self._reference_of(number)
        store = SharedReferenceStore(
            SimulatedStorage(self.bucket), DigestCache(Path(self._folder.name), _CACHE_BYTES), self._surroundings()
        )
        begun_at_s = self.timeline.now_s
        # Servers may hear of it before its caller does.
        change = Change(0.0, begun_at_s, reference.revision)
        self.changes[reference.reference_id] = change
        try:
            store.save(reference)
        except PatchserveError:
            self.failed_changes += 1
            del self.changes[reference.reference_id]
            return
        now_s = self.timeline.now_s
        change.answered_after_s = now_s - begun_at_s
        change.known_after_s = [max(0.0, begun_at_s + after_s - now_s) for after_s in change.known_after_s]
        change.answered_at_s = now_s

    def _reference_of(self, number: int) -> Reference:
        return make_reference(f"changed-{number}", seed=number)

    def _uniform(self, longest_s: float) -> float:
        return self.bucket.random.uniform(0, longest_s)

    def _write_index(self, count: int) -> None:
        """An index that names this many references. Their pointers are not there, because nobody asks for them."""
        objects, nonce = IndexObjects(self.bucket.objects), self._surroundings().nonce
        shards: dict[str, dict[ReferenceId, Entry]] = {shard: {} for shard in ALL_SHARDS}
        for number in range(count):
            reference_id = ReferenceId(f"reference-{number}")
            version = Version(e_tag=f'"{nonce()}"')
            shards[shard_of(reference_id)][reference_id] = Entry(self._reference.revision, nonce(), version)
        nonces = {}
        for shard, entries in shards.items():
            nonces[shard] = nonce()
            objects.swap_shard(shard, FoundShard(None, None), ShardContent(nonces[shard], entries))
        objects.swap_root(FoundRoot(None, None), nonces, nonce())
