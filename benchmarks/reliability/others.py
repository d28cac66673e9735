"""Calls of others during an attack, in a process of its own: prints how long each took, until its input ends."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.v1 import inference_pb2, service_pb2_grpc
from reliability.source_address import relayed

_ADDRESS = "127.0.0.9"
_INTERVAL_S = 0.05
_TIMEOUT_S = 60


async def _call_until(ended: asyncio.Future[Any], call: Callable[[], Awaitable[Any]], failed: list[str]) -> list[float]:
    took_ms = []
    while not ended.done():
        started_s = time.perf_counter()
        try:
            await call()
        except aio.AioRpcError as error:
            failed.append(error.code().name)
        took_ms.append(1000 * (time.perf_counter() - started_s))
        await asyncio.sleep(_INTERVAL_S)
    return took_ms


async def main(port: int, image: bytes) -> None:
    """Call until the input ends."""
    request = inference_pb2.InferRequest(image=image)
    check = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
    failed: dict[str, list[str]] = {"infer": [], "health": []}
    async with relayed(_ADDRESS, port) as address, aio.insecure_channel(address) as channel:
        stub, health = service_pb2_grpc.PatchCoreServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        await stub.Infer(request)
        print("ready", flush=True)
        ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
        infer_ms, health_ms = await asyncio.gather(
            _call_until(ended, lambda: stub.Infer(request, timeout=_TIMEOUT_S), failed["infer"]),
            _call_until(ended, lambda: health.Check(check, timeout=_TIMEOUT_S), failed["health"]),
        )
    print(json.dumps({"took_ms": {"infer": infer_ms, "health": health_ms}, "failed": failed}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
