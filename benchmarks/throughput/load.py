"""The callers, in a process of their own: closed loops that decode nothing of what they are answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from patchserve.v1 import inference_pb2, service_pb2_grpc, stream_pb2
from throughput.processes import answer_questions
from throughput.turns import Turns

FRAMES_IN_FLIGHT = 4  # of one stream

# A connection to each caller, as they would come from different machines.
_OPTIONS = [
    ("grpc.max_receive_message_length", 2**28),
    ("grpc.max_send_message_length", 2**28),
    ("grpc.use_local_subchannel_pool", 1),
]
_CALL_TIMEOUT_S = 120

Send = Callable[[int], Awaitable[Any]]  # the number of an image to the Timing of its answer, or None


class StreamError(Exception):
    """A stream answered something else than a result."""


async def _calls(turns: Turns, send: Send, numbers: itertools.count[int]) -> None:
    """One caller: sends an image when the one before is answered."""
    while not turns.enough:
        sent_s = time.perf_counter()
        turns.record(sent_s, await send(next(numbers)))


async def http(question: dict[str, Any]) -> Turns:
    turns, numbers = Turns(question["clients"], question["seconds"]), itertools.count()
    bodies = question["images"]
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), raise_for_status=True
    )

    async def send(number: int) -> None:
        async with session.post(question["address"], data=bodies[number % len(bodies)]) as response:
            await response.read()

    async with session:
        await asyncio.gather(*(_calls(turns, send, numbers) for _ in range(question["clients"])))
    return turns


async def unary(question: dict[str, Any]) -> Turns:
    turns, numbers = Turns(question["clients"], question["seconds"]), itertools.count()
    output = inference_pb2.OutputOptions(overlay=question["overlay"])
    requests = [
        inference_pb2.InferRequest(reference_id=reference_id, image=image, output=output)
        for image in question["images"]
        for reference_id in question["reference_ids"]
    ]

    async def caller() -> None:
        async with grpc.aio.insecure_channel(question["address"], options=_OPTIONS) as channel:
            stub = service_pb2_grpc.PatchCoreServiceStub(channel)

            async def send(number: int) -> Any:
                answer = await stub.Infer(requests[number % len(requests)], timeout=_CALL_TIMEOUT_S)
                return answer.timing

            await _calls(turns, send, numbers)

    await asyncio.gather(*(caller() for _ in range(question["clients"])))
    return turns


async def streams(question: dict[str, Any]) -> Turns:
    turns, numbers = Turns(question["streams"] * FRAMES_IN_FLIGHT, question["seconds"]), itertools.count()
    images = question["images"]
    (reference_id,) = question["reference_ids"]
    config = stream_pb2.StreamConfig(
        reference_id=reference_id,
        output=inference_pb2.OutputOptions(overlay=question["overlay"]),
        max_in_flight=FRAMES_IN_FLIGHT,
    )

    async def caller() -> None:
        async with grpc.aio.insecure_channel(question["address"], options=_OPTIONS) as channel:
            call = service_pb2_grpc.PatchCoreServiceStub(channel).InferStream()
            sent_s: dict[str, float] = {}

            async def send() -> None:
                number = next(numbers)
                frame = stream_pb2.Frame(frame_id=str(number), image=images[number % len(images)])
                sent_s[frame.frame_id] = time.perf_counter()
                await call.write(stream_pb2.InferStreamRequest(frame=frame))

            await call.write(stream_pb2.InferStreamRequest(config=config))
            await _answer(call, "ready")
            for _ in range(FRAMES_IN_FLIGHT):
                await send()
            while sent_s:
                result = (await _answer(call, "result")).result
                if result.WhichOneof("outcome") != "response":
                    raise StreamError(str(result.error))
                turns.record(sent_s.pop(result.frame_id), result.response.timing)
                if not turns.enough:
                    await send()
            await call.done_writing()

    await asyncio.gather(*(caller() for _ in range(question["streams"])))
    return turns


async def _answer(call: Any, expected: str) -> stream_pb2.InferStreamResponse:
    response = await call.read()
    if response is grpc.aio.EOF:
        raise StreamError(f"{await call.code()}: {await call.details()}")
    if response.WhichOneof("payload") != expected:
        raise StreamError(f"{expected} was expected: {response}")
    answer: stream_pb2.InferStreamResponse = response
    return answer


_KINDS = {"http": http, "unary": unary, "streams": streams}


def _answered(question: dict[str, Any]) -> dict[str, Any]:
    question["images"] = [Path(path).read_bytes() for path in question["images"]]
    return asyncio.run(_KINDS[question["kind"]](question)).found()


if __name__ == "__main__":
    answer_questions(lambda: ({}, _answered))
