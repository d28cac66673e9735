"""A caller with 200 calls at a time that ignores when to try again, beside one that makes one call at a time."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from patchserve.v1 import inference_pb2
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from reliability import greedy_caller
from reliability.harness import GOOD, PARCELS, TEST, Result, Stub, client, load, percentile, server

_GREEDY_CALLS = 200
_ALONE_S = 10.0
_REQUEST = inference_pb2.InferRequest(image=TEST[0])


@dataclass
class _Modest:
    """The calls of the caller that waits for each response."""

    took_ms: list[float] = field(default_factory=list)
    batch_ms: list[float] = field(default_factory=list)  # of the batch that each image was in

    async def call_for(self, stub: Stub, metadata: list[tuple[str, str]], duration_s: float) -> None:
        end_s = time.perf_counter() + duration_s
        while (started_s := time.perf_counter()) < end_s:
            timing = (await stub.Infer(_REQUEST, metadata=metadata, timeout=60)).timing
            self.took_ms.append(1000 * (time.perf_counter() - started_s))
            self.batch_ms.append(timing.embed_ms + timing.search_ms)


async def run(duration_s: int) -> Result:
    (modest, line), (greedy, other_line) = (new_token(name, list(Scope)) for name in ("modest", "greedy"))
    metadata, pipe = [("authorization", f"Bearer {modest}")], asyncio.subprocess.PIPE
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        tokens.write_text(f"{line}\n{other_line}\n")
        async with server("--auth-tokens", str(tokens)) as running, client(running.address) as stub:
            await load(stub, images=GOOD[:1], metadata=metadata)
            alone, beside = _Modest(), _Modest()
            await alone.call_for(stub, metadata, _ALONE_S)
            image = str(next((PARCELS / "test").rglob("*.jpg")))
            arguments = greedy_caller.__file__, running.address, greedy, str(_GREEDY_CALLS), image
            caller = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
            await asyncio.sleep(5)
            await beside.call_for(stub, metadata, duration_s)
            greedy_rates = json.loads((await caller.communicate(b""))[0])
            log_bytes = len(running.log)
    batch_ms = statistics.median(beside.batch_ms)
    return {
        "alone_p50_ms": percentile(alone.took_ms, 0.5),
        "beside_p50_ms": percentile(beside.took_ms, 0.5),
        "beside_p90_ms": percentile(beside.took_ms, 0.9),
        "beside_calls_per_s": len(beside.took_ms) / duration_s,
        "batch_p50_ms": batch_ms,
        "batches_per_call_p50": percentile(beside.took_ms, 0.5) / batch_ms,
        "greedy": greedy_rates,
        "log_bytes": log_bytes,
    }
