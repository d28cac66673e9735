"""Calls with many calls at a time and tries again at once when it is refused, in its own process.

Until its input ends; then prints how many calls were answered and refused, each second.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from grpc import aio

from patchserve.v1 import inference_pb2, service_pb2_grpc

if TYPE_CHECKING:
    Stub: TypeAlias = service_pb2_grpc.PatchCoreServiceAsyncStub


async def main(address: str, token: str, calls: int, image: bytes) -> None:
    request = inference_pb2.InferRequest(image=image)
    metadata = [("authorization", f"Bearer {token}")] if token else []
    answered = refused = 0

    async def call_forever(stub: Stub) -> None:
        nonlocal answered, refused
        while True:
            try:
                await stub.Infer(request, metadata=metadata)
                answered += 1
            except aio.AioRpcError:
                refused += 1

    async with aio.insecure_channel(address) as channel:
        stub: Stub = service_pb2_grpc.PatchCoreServiceStub(channel)
        started_s = time.perf_counter()
        tasks = [asyncio.create_task(call_forever(stub)) for _ in range(calls)]
        await asyncio.to_thread(sys.stdin.read)
        took_s = time.perf_counter() - started_s
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps({"answered_per_s": answered / took_s, "refused_per_s": refused / took_s}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]).read_bytes()))
