"""Four times what the server can do: how much of it still gets done, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.v1 import inference_pb2
from reliability.scene import TEST, Result, Server, Stub, client, load, percentile, progress, reason_of, server

FACTOR = 4
CLIENTS = 16
_CAPACITY_S = 15.0
_HEALTH_EVERY_S = 0.25
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
    """Pictures a second of callers who wait for each answer, as many as keep the server busy."""
    seen, end = _Seen(), time.perf_counter() + duration_s

    async def caller() -> None:
        while time.perf_counter() < end:
            await seen.ask(stub)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CLIENTS)))
    return len(seen.accepted_ms) / (time.perf_counter() - begun)


async def _probe(address: str, found_ms: list[float]) -> None:
    async with aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
        while True:
            begun = time.perf_counter()
            await stub.Check(request, timeout=30)
            found_ms.append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(_HEALTH_EVERY_S)


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
    can = await capacity(stub, _CAPACITY_S)
    before = running.vitals()
    health_ms: list[float] = []
    probe = asyncio.create_task(_probe(running.address, health_ms))
    begun = time.perf_counter()
    seen = await _offer(stub, FACTOR * can, duration_s)
    took_s = time.perf_counter() - begun
    probe.cancel()
    await asyncio.sleep(2)
    after = running.vitals()
    again = await capacity(stub, _CAPACITY_S)
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


async def run(duration_s: float) -> Result:
    # All callers of this run are one client, and as many pictures may wait as take about a second.
    async with server("--client-share", "1", "--max-pending-images", "32") as running, client(running.address) as stub:
        await load(stub)
        return await _measured(running, stub, duration_s)
