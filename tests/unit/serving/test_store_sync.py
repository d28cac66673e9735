"""StoreSync: it polls forever, whatever happens, and says once that the store is lost and once that it is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.catalogs import CatalogFactory, publish, view_of
from fakes.gray import reference
from fakes.shared_store import FakeSharedStore, SharedMemory
from fakes.waiting import until

from patchserve_server.serving import store_sync
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.shared_store_view import Sharing
from patchserve_server.serving.store_sync import StoreSync


class Bench:
    def __init__(self, factory: CatalogFactory, pool: ThreadPoolExecutor) -> None:
        self.memory = SharedMemory()
        self.store = FakeSharedStore(self.memory)
        self.catalog: Catalog = factory.replica(self.store)
        self.waits: list[float] = []
        sharing = Sharing("s3://bucket/line", self.store, pool, pool)
        self.sync = StoreSync(
            sharing, view_of(self.catalog), pool, interval_s=0.001, random_share=lambda: len(self.waits) % 2
        )


@pytest.fixture
def bench(factory: CatalogFactory) -> Iterator[Bench]:
    with ThreadPoolExecutor(2) as pool:
        yield Bench(factory, pool)


async def test_it_learns_of_changes_and_says_once_that_the_store_is_lost_and_once_that_it_is_back(
    bench: Bench, factory: CatalogFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    other = factory.replica(FakeSharedStore(bench.memory))
    running = asyncio.create_task(bench.sync.run())
    for round_number in range(2):
        await publish(other, reference(f"r{round_number}"))
        await until(lambda expected=round_number + 1: bench.catalog.usable_count == expected)  # type: ignore[misc]
        bench.memory.away = True
        await until(lambda: not view_of(bench.catalog).status().is_reachable)
        polls = bench.store.polls
        await asyncio.sleep(0.02)  # several attempts
        bench.memory.away = False
        await until(lambda seen=polls: bench.store.polls > seen)  # type: ignore[misc]
        await until(lambda: view_of(bench.catalog).status().is_reachable)
    running.cancel()
    assert caplog.text.count("The store s3://bucket/line cannot be reached") == 2
    assert caplog.text.count("The store s3://bucket/line is reached again") == 2


async def test_a_bug_in_one_poll_does_not_end_the_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    fails = [True]

    def fail_once(operation: str) -> None:
        if operation == "poll" and fails.pop():
            fails.append(False)
            raise ZeroDivisionError

    bench.store.before_answer = fail_once
    running = asyncio.create_task(bench.sync.run())
    await until(lambda: bench.store.polls > 3)
    assert not running.done()
    running.cancel()
    assert "cannot be polled" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_due_is_done_beside_the_polls(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sync, "_MAINTENANCE_INTERVAL_S", 0.001)
    running = asyncio.create_task(bench.sync.run())
    await until(lambda: bench.store.maintained > 2)
    bench.memory.away = True
    await until(lambda: not view_of(bench.catalog).status().is_reachable)
    done = bench.store.maintained
    bench.memory.away = False
    await until(lambda: bench.store.maintained > done)
    running.cancel()


def test_a_server_never_polls_more_often_than_every_two_seconds_and_servers_drift_apart() -> None:
    shares = iter([0.0, 0.5, 1.0])
    with ThreadPoolExecutor(1) as pool:
        store = FakeSharedStore(SharedMemory())
        view = view_of(CatalogFactory(pool, pool).replica(store))
        sync = StoreSync(Sharing("x://y", store, pool, pool), view, pool, random_share=lambda: next(shares))
        pauses_s = [sync._pause_s(store_sync.POLL_INTERVAL_S) for _ in range(3)]
    assert min(pauses_s) == 2.0
    assert len(set(pauses_s)) == 3
    assert max(pauses_s) < 2.5
