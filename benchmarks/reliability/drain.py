"""SIGTERM under streaming load: every accepted frame gets a result, every call a response or a clear rejection."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

from grpc import aio

from patchserve.v1 import inference_pb2, stream_pb2
from patchserve_client._aio_status import server_status_first
from reliability.harness import TEST, Result, Stub, client, load, progress, reason_of, server

_STREAMS, _CALLERS = 4, 2
# CANCELLED: gRPC dropped the call before the server read it (docs/errors.md).
_REJECTED = {"DRAINING", "UNAVAILABLE", "CANCELLED"}


class _Tally:
    def __init__(self) -> None:
        self.frames_answered = 0
        self.frames_missing = 0
        self.calls: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()


async def _stream(stub: Stub, tally: _Tally, ordering: stream_pb2.ResultOrdering.ValueType) -> None:
    async def messages() -> AsyncIterator[stream_pb2.InferStreamRequest]:
        yield stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig(max_in_flight=8, ordering=ordering))
        while True:
            yield stream_pb2.InferStreamRequest(frame=stream_pb2.Frame(image=TEST[0]))

    sequences: list[int] = []
    call = stub.InferStream(messages())
    try:
        async with server_status_first(call):  # the server's status, not one that grpcio makes up
            async for response in call:
                sequences += [response.result.sequence] * response.HasField("result")
        tally.ends["no error"] += 1
    except aio.AioRpcError as error:
        tally.ends[reason_of(error)] += 1
    # Accepted frames are numbered consecutively, so a frame without a result leaves a gap.
    tally.frames_answered += len(sequences)
    tally.frames_missing += (max(sequences) + 1 - len(set(sequences))) if sequences else 0


async def _caller(stub: Stub, tally: _Tally) -> None:
    while True:
        try:
            await stub.Infer(inference_pb2.InferRequest(image=TEST[0]), timeout=60)
            tally.calls["answered"] += 1
        except aio.AioRpcError as error:
            tally.calls[reason_of(error)] += 1
            return


async def run(count: int, seed: int = 0) -> Result:
    rng, tally, exit_codes, longest_s = random.Random(seed), _Tally(), Counter[int](), 0.0
    orderings = stream_pb2.RESULT_ORDERING_INPUT, stream_pb2.RESULT_ORDERING_COMPLETION
    with progress() as bar:
        bar_task = bar.add_task("drain", total=count)
        for _ in range(count):
            flags = "--drain-delay-s", "0.2", "--client-share", "1"
            async with server(*flags) as running, client(running.address) as stub:
                await load(stub)
                tasks = [
                    *(asyncio.create_task(_stream(stub, tally, orderings[n % 2])) for n in range(_STREAMS)),
                    *(asyncio.create_task(_caller(stub, tally)) for _ in range(_CALLERS)),
                ]
                await asyncio.sleep(0.3 + rng.random())
                stopped_at_s = time.perf_counter()
                exit_codes[await running.stop()] += 1
                longest_s = max(longest_s, time.perf_counter() - stopped_at_s)
                await asyncio.gather(*tasks)
            bar.advance(bar_task)
    return {
        "sigterms": count,
        "frames_answered": tally.frames_answered,
        "frames_without_result": tally.frames_missing,
        "streams_ended_with": dict(tally.ends),
        "calls": dict(tally.calls),
        "calls_lost": sum(number for outcome, number in tally.calls.items() if outcome not in {"answered", *_REJECTED}),
        "exit_codes": {str(code): number for code, number in exit_codes.items()},
        "longest_drain_s": longest_s,
    }
