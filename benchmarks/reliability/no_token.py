"""Calls without a token, a thousand a second from one address: what they cost, and what they leave in the log."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from grpc import aio

from patchserve.v1 import inference_pb2
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from reliability.harness import TEST, Result, Stub, client, server

_RATE = 1000
_LONGEST_WAIT_S = 2.0  # a caller that gives up does so after this time
_REQUEST = inference_pb2.InferRequest(image=TEST[0])


async def _call(stub: Stub) -> None:
    with suppress(aio.AioRpcError):
        await stub.Infer(_REQUEST, timeout=_LONGEST_WAIT_S)


async def run(duration_s: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        tokens.write_text(new_token("somebody", [Scope.INFER])[1] + "\n")
        async with server("--auth-tokens", str(tokens)) as running, client(running.address) as stub:
            calls = set[asyncio.Task[None]]()
            cpu_before_s, log_before = running.cpu_s(), len(running.log)
            started_s = time.perf_counter()
            for number in range(_RATE * duration_s):
                await asyncio.sleep(max(0.0, started_s + number / _RATE - time.perf_counter()))
                call = asyncio.create_task(_call(stub))
                calls.add(call)
                call.add_done_callback(calls.discard)
            await asyncio.gather(*calls)
            took_s = time.perf_counter() - started_s
            await asyncio.sleep(12)  # for the last sum in the log
            log_bytes = len(running.log) - log_before
            return {
                "calls_per_s": _RATE * duration_s / took_s,
                "server_cpu_ms_per_call": 1000 * (running.cpu_s() - cpu_before_s) / (_RATE * duration_s),
                "log_bytes": log_bytes,
                "log_gib_per_day": log_bytes / (took_s + 12) * 86400 / 2**30,
                "rss_mib": running.resource_use().rss_mib,
            }
