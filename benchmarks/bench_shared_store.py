"""Servers on one store: when changes are seen elsewhere, what a start with many references takes, what polls cost.

    PYTHONPATH=server:client:protos/python .venv/bin/python benchmarks/bench_shared_store.py

The store is in memory, and each of its answers takes 20 ms, as those of an object storage in the same region do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pytest
from e2e.harness import Stub, connect
from e2e.in_process import in_process_server
from fakes.faulty_objects import Faults, FaultyObjectStorage
from fakes.gray import gray_png, reference

from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.reference_pb2 import ListReferencesRequest, LoadReferenceRequest
from patchserve_server.bootstrap import catalog
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store.objects import MemoryObjectStorage
from patchserve_server.store.shared import DigestCache, SharedReferenceStore

ANSWER_S = 0.02


@contextmanager
def server(storage: MemoryObjectStorage, folder: Path) -> Iterator[tuple[Stub, FaultyObjectStorage]]:
    """A server, and its way to the store."""
    distant = FaultyObjectStorage(storage, Faults(delay_s=(ANSWER_S, ANSWER_S)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "open_object_storage", lambda _: distant)
        cache = Path(tempfile.mkdtemp(dir=folder))
        with in_process_server(store="memory://bench", store_cache=cache) as address, connect(address) as stub:
            yield stub, distant


def load(stub: Stub, level: int) -> str:
    request = LoadReferenceRequest(reference_id="belt", images=[gray_png(level)])
    return stub.LoadReference(request).reference.revision


def infer(stub: Stub, expected: str = "") -> str:
    request = InferRequest(reference_id="belt", image=gray_png(100), expected_revision=expected)
    return stub.Infer(request).reference_revision


def changes(rounds: int, folder: Path) -> None:
    storage = MemoryObjectStorage("memory://bench")
    with server(storage, folder) as (one, _), server(storage, folder) as (other, _):
        untold_s, at_once_ms, same_ms, save_ms = list[float](), list[float](), list[float](), list[float]()
        for number in range(rounds):
            started_at_s = time.perf_counter()
            revision = load(one, number % 250)
            loaded_at_s = time.perf_counter()
            save_ms.append(1000 * (loaded_at_s - started_at_s))
            while infer(other) != revision:
                time.sleep(0.01)
            untold_s.append(time.perf_counter() - loaded_at_s)
            revision = load(one, 251 + number % 4)
            for times_ms in (at_once_ms, same_ms):
                started_at_s = time.perf_counter()
                infer(other, revision)
                times_ms.append(1000 * (time.perf_counter() - started_at_s))
    print(f"a change takes {statistics.median(save_ms):.0f} ms (median)")
    print(f"seen elsewhere untold after {statistics.median(untold_s):.2f} s (median), {max(untold_s):.2f} s (longest)")
    print(
        f"with its revision: the first call takes {statistics.median(at_once_ms):.0f} ms (median), "
        f"{max(at_once_ms):.0f} ms (longest); the second one {statistics.median(same_ms):.0f} ms"
    )


def start(count: int, folder: Path) -> None:
    storage = MemoryObjectStorage("memory://bench")
    took_s = {}
    for name in ("empty", "full"):
        if name == "full":
            store = SharedReferenceStore(storage, DigestCache(folder / "filling", 2**30))
            template = reference()
            for number in range(count):
                store.save(replace(template, reference_id=ReferenceId(f"r{number:05}")))
        started_at_s = time.perf_counter()
        with server(storage, folder) as (stub, distant):
            took_s[name] = time.perf_counter() - started_at_s
            at_start = sum(distant.calls.values())
            page_ms = []
            for _ in range(2):
                asked_at_s = time.perf_counter()
                listed = stub.ListReferences(ListReferencesRequest(page_size=100)).references
                page_ms.append(1000 * (time.perf_counter() - asked_at_s))
            before = distant.calls.copy()
            time.sleep(20)
            steady = distant.calls - before
        print(
            f"{name}: start {took_s[name]:.2f} s, {at_start} requests; a page of {len(listed)} references "
            f"{page_ms[0]:.0f} ms, again {page_ms[1]:.0f} ms; then in 20 s {dict(steady)}"
        )
    print(f"a start with {count:,} references takes {took_s['full'] - took_s['empty']:.2f} s longer than an empty one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--references", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        changes(arguments.rounds, Path(folder))
        start(arguments.references, Path(folder))


if __name__ == "__main__":
    main()
