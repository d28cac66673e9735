"""Four times as many calls as the server can answer: how many it still answers, and what happens to the others."""

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
from reliability.harness import TEST, Result, Server, Stub, client, load, percentile, progress, reason_of, server

FACTOR = 4
CLIENTS = 16
_CAPACITY_S = 15.0
_REQUEST = inference_pb2.InferRequest(image=TEST[0], output=inference_pb2.OutputOptions(overlay=True))


class _Outcomes:
    def __init__(self) -> None:
        self.accepted_ms: list[float] = []
        self.rejected_ms: list[float] = []
        self.other_errors: Counter[str] = Counter()
        self.last_accepted_s = 0.0  # when it was answered; refusals may come later

    async def call(self, stub: Stub) -> None:
        started_s = time.perf_counter()
        try:
            await stub.Infer(_REQUEST, timeout=60)
        except aio.AioRpcError as error:
            took_ms = 1000 * (time.perf_counter() - started_s)
            if (reason := reason_of(error)) == "QUEUE_FULL":
                self.rejected_ms.append(took_ms)
            else:
                self.other_errors[reason] += 1
        else:
            self.last_accepted_s = time.perf_counter()
            self.accepted_ms.append(1000 * (self.last_accepted_s - started_s))


async def capacity(stub: Stub, duration_s: float) -> float:
    """Images per second with enough clients to keep the server busy; each waits for its response."""
    outcomes, end = _Outcomes(), time.perf_counter() + duration_s

    async def client_loop() -> None:
        while time.perf_counter() < end:
            await outcomes.call(stub)

    started_s = time.perf_counter()
    await asyncio.gather(*(client_loop() for _ in range(CLIENTS)))
    return len(outcomes.accepted_ms) / (time.perf_counter() - started_s)


async def _start_probe(address: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, probe.__file__, address, stdin=pipe, stdout=pipe)


async def _offer(stub: Stub, rate: float, duration_s: float) -> _Outcomes:
    """Send calls at a fixed rate, whether earlier calls are finished or not."""
    outcomes, calls = _Outcomes(), set[asyncio.Task[None]]()
    started_s = time.perf_counter()
    with progress() as bar:
        bar_task = bar.add_task(f"overload, {rate:.0f} calls/s", total=duration_s)
        for number in range(int(rate * duration_s)):
            await asyncio.sleep(max(0.0, started_s + number / rate - time.perf_counter()))
            call = asyncio.create_task(outcomes.call(stub))
            calls.add(call)
            call.add_done_callback(calls.discard)
            bar.update(bar_task, completed=time.perf_counter() - started_s)
    await asyncio.gather(*calls)
    return outcomes


async def _measure(running: Server, stub: Stub, duration_s: float) -> Result:
    await capacity(stub, 5)  # so that the server has allocated all the memory that it needs
    capacity_s = min(_CAPACITY_S, duration_s)
    cpu_before_s = running.cpu_s()
    capacity_before = await capacity(stub, capacity_s)
    cpu_per_response_s = (running.cpu_s() - cpu_before_s) / (capacity_before * capacity_s)
    before = running.resource_use()
    probe_process = await _start_probe(running.address)
    started_s, cpu_before_s = time.perf_counter(), running.cpu_s()
    outcomes = await _offer(stub, FACTOR * capacity_before, duration_s)
    took_s = outcomes.last_accepted_s - started_s
    overload_cpu_per_response_s = (running.cpu_s() - cpu_before_s) / len(outcomes.accepted_ms)
    health_ms: list[float] = json.loads((await probe_process.communicate(b"\n"))[0])
    await asyncio.sleep(2)
    after = running.resource_use()
    capacity_after = await capacity(stub, capacity_s)
    return {
        "capacity_per_s": capacity_before,
        "capacity_after_per_s": capacity_after,
        "offered_per_s": FACTOR * capacity_before,
        "goodput_per_s": len(outcomes.accepted_ms) / took_s,
        "goodput_share": len(outcomes.accepted_ms) / took_s / statistics.mean([capacity_before, capacity_after]),
        # The same from the server's processor time for a response: other programs on the machine do not change it.
        "goodput_share_of_cpu": cpu_per_response_s / overload_cpu_per_response_s,
        "accepted_p50_ms": percentile(outcomes.accepted_ms, 0.5),
        "accepted_p99_ms": percentile(outcomes.accepted_ms, 0.99),
        "rejected": len(outcomes.rejected_ms),
        "rejected_p50_ms": percentile(outcomes.rejected_ms, 0.5),
        "rejected_p99_ms": percentile(outcomes.rejected_ms, 0.99),
        "other_errors": dict(outcomes.other_errors),
        "health_p99_ms": percentile(health_ms, 0.99),
        "health_max_ms": max(health_ms),
        "rss_before_mib": before.rss_mib,
        "rss_after_mib": after.rss_mib,
        "rss_ratio": after.rss_mib / before.rss_mib,
    }


@contextmanager
def _split_cores() -> Iterator[tuple[set[int], set[int]]]:
    """Separate cores for the server and for the clients, which run here; a single core is shared."""
    cores = sorted(os.sched_getaffinity(0))
    server_cores, client_cores = set(cores[: (len(cores) + 1) // 2]), set(cores[len(cores) // 2 :])
    os.sched_setaffinity(0, client_cores)
    try:
        yield server_cores, client_cores
    finally:
        os.sched_setaffinity(0, cores)


async def run(duration_s: float) -> Result:
    # All calls here come from one address, so one caller gets everything. 32 waiting images take about a second.
    flags = "--client-share", "1", "--max-pending-images", "32"
    with _split_cores() as (server_cores, client_cores):
        async with server(*flags, cores=server_cores) as running, client(running.address) as stub:
            await load(stub)
            cores = {"server_cores": len(server_cores), "client_cores": len(client_cores)}
            return cores | await _measure(running, stub, duration_s)
