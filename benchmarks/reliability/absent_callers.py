"""Callers that do not read what they asked for, cancel, or are late: nothing of them stays in memory or in the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import aio

from patchserve.v1 import inference_pb2, stream_pb2
from reliability.harness import TEST, Result, Server, Stub, client, load, server

_STALLED = 140
_WARM_UP = 30
_WRITE_TIMEOUT_S = 2.0
_LATE_S = (0.0005, 0.002, 0.01, 0.05)
_AT_ONCE = 50
_REQUEST = inference_pb2.InferRequest(image=TEST[0])
_WITH_OVERLAY = inference_pb2.InferRequest(image=TEST[0], output=inference_pb2.OutputOptions(overlay=True))


async def _stall(running: Server) -> Result:
    """Calls whose responses are not read, on connections that stay open."""
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1), ("grpc.use_local_subchannel_pool", 1)]
    before = running.resource_use().rss_mib
    with grpc.insecure_channel(running.address, options) as channel:
        infer: Any = channel.stream_stream("/patchserve.v1.PatchCoreService/Infer")
        calls = []
        for _ in range(_STALLED):
            calls.append(infer(iter([_WITH_OVERLAY.SerializeToString()])))
            await asyncio.sleep(0.1)
        at_most = running.resource_use().rss_mib
        await asyncio.sleep(3 * _WRITE_TIMEOUT_S)
        after = running.resource_use().rss_mib
        for call in calls:
            call.cancel()
    return {"rss_before_mib": before, "rss_at_most_mib": at_most, "rss_after_mib": after}


async def _leave(stub: Stub, rng: random.Random) -> None:
    """One call that is cancelled or late."""

    async def messages() -> AsyncIterator[stream_pb2.InferStreamRequest]:
        yield stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig())
        for _ in range(3):
            yield stream_pb2.InferStreamRequest(frame=stream_pb2.Frame(image=TEST[0]))
        await asyncio.sleep(1)

    try:
        match rng.randrange(3):
            case 0:
                await stub.Infer(_REQUEST, timeout=rng.choice(_LATE_S))
            case 1:
                call = stub.Infer(_REQUEST)
                await asyncio.sleep(rng.random() * 0.03)
                call.cancel()
                await call
            case _:
                async for _ in stub.InferStream(messages(), timeout=rng.choice(_LATE_S)):
                    pass
    except (aio.AioRpcError, asyncio.CancelledError):
        pass


async def _leave_often(stub: Stub, count: int, seed: int) -> None:
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await _leave(stub, random.Random(f"{seed}/{number}"))

    await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))


async def run(count: int) -> Result:
    flags = "--stream-write-timeout-s", f"{_WRITE_TIMEOUT_S:g}", "--client-share", "1"
    async with server(*flags) as running, client(running.address) as stub:
        await load(stub)
        for _ in range(_WARM_UP):  # until the server has allocated all the memory that it needs
            await asyncio.gather(*(stub.Infer(_WITH_OVERLAY) for _ in range(8)))
        stalled = await _stall(running)
        await _leave_often(stub, count // 2, 0)  # again
        halfway = running.resource_use().rss_mib
        await _leave_often(stub, count, 1)
        await asyncio.sleep(2)
        return {
            "stalled": stalled,
            "late_or_cancelled": count,
            "rss_before_mib": halfway,
            "rss_after_mib": running.resource_use().rss_mib,
            "tracebacks": running.log.count("Traceback"),
            "log_bytes": len(running.log),
        }
