"""Four times what the server can do: how much of it still gets done, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from grpc import aio

from patchserve.v1 import inference_pb2
from reliability import probe
from reliability.scene import TEST, Result, Server, Stub, client, load, percentile, progress, reason_of, server

FACTOR = 4
CLIENTS = 16
_CAPACITY_S = 15.0
_REQUEST = inference_pb2.InferRequest(image=TEST[0], output=inference_pb2.OutputOptions(overlay=True))


class _Seen:
    def __init__(self) -> None:
        self.accepted_ms: list[float] = []
        self.refused_ms: list[float] = []
        self.other: Counter[str] = Counter()

    async def ask(self, stub: Stub) -> None:
        begun = time.perf_counter()
        try:
            await stub.Infer(_REQUEST, timeout=60)
        except aio.AioRpcError as error:
            took_ms = 1000 * (time.perf_counter() - begun)
            if (reason := reason_of(error)) == "QUEUE_FULL":
                self.refused_ms.append(took_ms)
            else:
                self.other[reason] += 1
        else:
            self.accepted_ms.append(1000 * (time.perf_counter() - begun))


async def capacity(stub: Stub, duration_s: float) -> float:
    """Images a second of callers who wait for each answer, as many as keep the server busy."""
    seen, end = _Seen(), time.perf_counter() + duration_s

    async def caller() -> None:
        while time.perf_counter() < end:
            await seen.ask(stub)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CLIENTS)))
    return len(seen.accepted_ms) / (time.perf_counter() - begun)


async def _probe(address: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, probe.__file__, address, stdin=pipe, stdout=pipe)


async def _offer(stub: Stub, rate: float, duration_s: float) -> _Seen:
    """Calls at fixed moments, whatever became of those before."""
    seen, calls = _Seen(), set[asyncio.Task[None]]()
    begun = time.perf_counter()
    with progress() as bar:
        task = bar.add_task(f"overload, {rate:.0f} calls/s", total=duration_s)
        for number in range(int(rate * duration_s)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            call = asyncio.create_task(seen.ask(stub))
            calls.add(call)
            call.add_done_callback(calls.discard)
            bar.update(task, completed=time.perf_counter() - begun)
    await asyncio.gather(*calls)
    return seen


async def _measured(running: Server, stub: Stub, duration_s: float) -> Result:
    await capacity(stub, 5)  # so that all memory that is ever needed has been taken
    capacity_s = min(_CAPACITY_S, duration_s)
    can = await capacity(stub, capacity_s)
    before = running.vitals()
    asking = await _probe(running.address)
    begun = time.perf_counter()
    seen = await _offer(stub, FACTOR * can, duration_s)
    took_s = time.perf_counter() - begun
    health_ms: list[float] = json.loads((await asking.communicate(b"\n"))[0])
    await asyncio.sleep(2)
    after = running.vitals()
    again = await capacity(stub, capacity_s)
    return {
        "capacity_per_s": can,
        "capacity_after_per_s": again,
        "offered_per_s": (len(seen.accepted_ms) + len(seen.refused_ms)) / took_s,
        "goodput_per_s": len(seen.accepted_ms) / took_s,
        "goodput_share": len(seen.accepted_ms) / took_s / statistics.mean([can, again]),
        "accepted_p50_ms": percentile(seen.accepted_ms, 0.5),
        "accepted_p99_ms": percentile(seen.accepted_ms, 0.99),
        "refused": len(seen.refused_ms),
        "refused_p50_ms": percentile(seen.refused_ms, 0.5),
        "refused_p99_ms": percentile(seen.refused_ms, 0.99),
        "other_errors": dict(seen.other),
        "health_p99_ms": percentile(health_ms, 0.99),
        "health_max_ms": max(health_ms),
        "rss_before_mib": before.rss_mib,
        "rss_after_mib": after.rss_mib,
        "rss_ratio": after.rss_mib / before.rss_mib,
    }


@contextmanager
def _halves() -> Iterator[tuple[set[int], set[int]]]:
    """The server's cores and the callers', so that neither takes what is the other's; one core is both's."""
    cores = sorted(os.sched_getaffinity(0))
    theirs, ours = set(cores[: (len(cores) + 1) // 2]), set(cores[len(cores) // 2 :])
    os.sched_setaffinity(0, ours)
    try:
        yield theirs, ours
    finally:
        os.sched_setaffinity(0, cores)


async def run(duration_s: float) -> Result:
    # All callers of this run are one client, and as many images may wait as take about a second.
    flags = "--client-share", "1", "--max-pending-images", "32"
    with _halves() as (theirs, ours):
        async with server(*flags, cores=theirs) as running, client(running.address) as stub:
            await load(stub)
            cores = {"cores_of_the_server": len(theirs), "cores_of_the_callers": len(ours)}
            return cores | await _measured(running, stub, duration_s)
