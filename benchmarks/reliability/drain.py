"""SIGTERM under streaming load: every accepted frame is answered, every call ends with an answer or a clear refusal."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

from grpc import aio

from patchserve.v1 import inference_pb2, stream_pb2
from patchserve_client._aio_status import server_status_first
from reliability.scene import TEST, Result, Stub, client, load, progress, reason_of, server

_STREAMS, _CALLERS = 4, 2
# CANCELLED is gRPC's own word for a call that it threw away unread: docs/errors.md.
_LEFT = {"DRAINING", "UNAVAILABLE", "CANCELLED"}


class _Tally:
    def __init__(self) -> None:
        self.answered = 0
        self.gaps = 0
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
        async with server_status_first(call):  # the server's word, where grpcio has one of its own
            async for answer in call:
                sequences += [answer.result.sequence] * answer.HasField("result")
        tally.ends["without a status"] += 1
    except aio.AioRpcError as error:
        tally.ends[reason_of(error)] += 1
    # Accepted frames are numbered one after the other: one without an answer leaves a gap.
    tally.answered += len(sequences)
    tally.gaps += (max(sequences) + 1 - len(set(sequences))) if sequences else 0


async def _caller(stub: Stub, tally: _Tally) -> None:
    while True:
        try:
            await stub.Infer(inference_pb2.InferRequest(image=TEST[0]), timeout=60)
            tally.calls["answered"] += 1
        except aio.AioRpcError as error:
            tally.calls[reason_of(error)] += 1
            return


async def run(count: int, seed: int = 0) -> Result:
    dice, tally, codes, longest_s = random.Random(seed), _Tally(), Counter[int](), 0.0
    orderings = stream_pb2.RESULT_ORDERING_INPUT, stream_pb2.RESULT_ORDERING_COMPLETION
    with progress() as bar:
        task = bar.add_task("drain", total=count)
        for _ in range(count):
            flags = "--drain-delay-s", "0.2", "--client-share", "1"
            async with server(*flags) as running, client(running.address) as stub:
                await load(stub)
                work = [
                    *(asyncio.create_task(_stream(stub, tally, orderings[n % 2])) for n in range(_STREAMS)),
                    *(asyncio.create_task(_caller(stub, tally)) for _ in range(_CALLERS)),
                ]
                await asyncio.sleep(0.3 + dice.random())
                begun = time.perf_counter()
                codes[await running.stop()] += 1
                longest_s = max(longest_s, time.perf_counter() - begun)
                await asyncio.gather(*work)
            bar.advance(task)
    return {
        "sigterms": count,
        "frames_answered": tally.answered,
        "frames_accepted_and_not_answered": tally.gaps,
        "streams_ended_with": dict(tally.ends),
        "calls": dict(tally.calls),
        "calls_lost": sum(number for end, number in tally.calls.items() if end not in {"answered", *_LEFT}),
        "exit_codes": {str(code): number for code, number in codes.items()},
        "longest_drain_s": longest_s,
    }
