"""SingleFlight: one run at a time for each key, and nobody gets what was read before they asked."""

from __future__ import annotations

import asyncio

import pytest
from fakes.waiting import settle

from patchserve_server.domain.errors import DrainingError
from patchserve_server.serving.single_flight import SingleFlight


class Work:
    """Ends when a test says so; returns the number of its run."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = 0
        self.gate = asyncio.Semaphore(0)

    async def __call__(self, key: str) -> int:
        self.begun.append(key)
        number = len(self.begun)
        self.running += 1
        assert self.running == 1 or len(set(self.begun)) > 1
        try:
            await self.gate.acquire()
        finally:
            self.running -= 1
        return number


async def test_who_asks_while_it_runs_gets_the_next_run_with_all_others_who_have_asked() -> None:
    work = Work()
    flights = SingleFlight(work)
    first = [asyncio.create_task(flights.result("a")) for _ in range(3)]
    await settle()
    later = [asyncio.create_task(flights.result("a")) for _ in range(3)]
    await settle()
    assert work.begun == ["a"]
    work.gate.release()
    assert await asyncio.gather(*first) == [1, 1, 1]
    await settle()
    assert work.begun == ["a", "a"]
    work.gate.release()
    assert await asyncio.gather(*later) == [2, 2, 2]


async def test_keys_do_not_wait_for_each_other() -> None:
    work = Work()
    flights = SingleFlight(work)
    tasks = [asyncio.create_task(flights.result(key)) for key in "ab"]
    await settle()
    assert work.begun == ["a", "b"]
    work.gate.release()
    work.gate.release()
    assert sorted(await asyncio.gather(*tasks)) == [1, 2]


async def test_a_caller_who_leaves_ends_nothing_and_each_caller_gets_the_error_of_the_run() -> None:
    work = Work()
    flights = SingleFlight(work)
    leaving, staying = (asyncio.create_task(flights.result("a")) for _ in range(2))
    await settle()
    leaving.cancel()
    work.gate.release()
    assert await staying == 1

    async def fail(_key: str) -> int:
        raise DrainingError

    failing = SingleFlight(fail)
    errors = await asyncio.gather(*(failing.result("a") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [DrainingError] * 3
    assert len(set(map(id, errors))) == 3, "each caller has its own traceback"
    with pytest.raises(DrainingError):
        await failing.result("a")
