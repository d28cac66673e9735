"""What the index of a shared store costs a server: its first poll, one change, a quiet poll, memory.

    python benchmarks/bench_shared_index.py 10000 100000 [--latency-ms 20]

The bucket is in memory; each request waits for the latency, as one of S3 does.
"""

from __future__ import annotations

import argparse
import hashlib
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.store.objects import MemoryObjectStorage, StoredObject, Version
from patchserve_server.store.shared.index_objects import Entry, FoundRoot, FoundShard, IndexObjects, ShardContent
from patchserve_server.store.shared.index_view import IndexView
from patchserve_server.store.shared.keys import ALL_SHARDS, SHARDS, shard_of
from patchserve_server.store.shared.surroundings import Surroundings

READERS = 32  # as a server has


class SlowStorage(MemoryObjectStorage):
    """Waits before each request that reads."""

    latency_s = 0.0

    def get(self, key: str, *, max_bytes: int, unless: Version | None = None) -> StoredObject | None:
        time.sleep(self.latency_s)
        return super().get(key, max_bytes=max_bytes, unless=unless)


def entry(text: str) -> Entry:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Entry(Revision(digest), digest[:32], Version(e_tag=f'"{digest[32:]}"'))


def write_index(storage: SlowStorage, count: int) -> None:
    objects, surroundings = IndexObjects(storage), Surroundings()
    shards: dict[str, dict[ReferenceId, Entry]] = {shard: {} for shard in ALL_SHARDS}
    for number in range(count):
        name = ReferenceId(f"line-{number % 100:02}.camera-{number}")
        shards[shard_of(name)][name] = entry(name)
    nonces = {shard: surroundings.nonce() for shard in ALL_SHARDS}
    for shard, entries in shards.items():
        objects.swap_shard(shard, FoundShard(None, None), ShardContent(nonces[shard], entries))
    objects.swap_root(FoundRoot(None, None), nonces, surroundings.nonce())


def change_one(storage: SlowStorage) -> None:
    objects, nonce = IndexObjects(storage), Surroundings().nonce()
    found, root = objects.shard("00"), objects.root()
    assert found is not None
    assert root is not None
    entries = {**found.entries, next(iter(found.entries)): entry("new")}
    objects.swap_shard("00", found, ShardContent(nonce, entries))
    objects.swap_root(root, {**(root.shards or {}), "00": nonce}, nonce)


def timed(view: IndexView) -> tuple[float, int]:
    changed: dict[ReferenceId, Revision | None] = {}
    began_at_s = time.perf_counter()
    view.refresh(changed)
    return time.perf_counter() - began_at_s, len(changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--latency-ms", type=float, default=20)
    arguments = parser.parse_args()
    for count in (0, *arguments.counts):
        storage = SlowStorage()
        if count:
            write_index(storage, count)
        index_bytes = sum(each.size_bytes for each in storage.list(SHARDS))
        storage.latency_s = arguments.latency_ms / 1000
        with ThreadPoolExecutor(READERS) as readers:
            first_s, _ = timed(IndexView(IndexObjects(storage), readers.map))
            tracemalloc.start()
            view = IndexView(IndexObjects(storage), readers.map)
            timed(view)
            held_bytes, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            quiet_s, _ = timed(view)
            storage.latency_s = 0
            if count:
                change_one(storage)
            storage.latency_s = arguments.latency_ms / 1000
            change_s, _ = timed(view)
        print(
            f"{count:>7,} references: index {index_bytes / 2**20:5.1f} MiB, first poll {first_s:5.2f} s, quiet poll "
            f"{1000 * quiet_s:5.1f} ms, poll after one change {1000 * change_s:5.1f} ms, "
            f"held {held_bytes / 2**20:5.1f} MiB"
        )


if __name__ == "__main__":
    main()
