"""Everything that clients do, for a long time: nothing is lost or repeated, and nothing grows."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict

from grpc import aio

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from reliability.harness import GOOD, TEST, ResourceUse, Result, Stub, client, load, progress, reason_of, server

_SAMPLES = 60
_INVALID_IMAGES = [b"", b"no image", TEST[0][:2000], b"\x89PNG\r\n\x1a\n" + bytes(100), TEST[0][:-500] + bytes(400)]
_LOAD_REASONS = {"QUEUE_FULL"}


class _Tally:
    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self.frames_sent = 0
        self.frames_answered = 0


async def _unary(stub: Stub, tally: _Tally, rng: random.Random) -> None:
    output = inference_pb2.OutputOptions(overlay=rng.random() < 0.5, score_map=rng.random() < 0.2)
    try:
        response = await stub.Infer(inference_pb2.InferRequest(image=rng.choice(TEST), output=output), timeout=60)
    except aio.AioRpcError as error:
        if reason_of(error) not in _LOAD_REASONS:
            tally.problems[f"unary {reason_of(error)}"] += 1
        await asyncio.sleep(0.2)
        return
    tally.done["unary"] += 1
    tally.problems["unary without overlay"] += output.overlay and not response.overlay_png


async def _stream(stub: Stub, tally: _Tally, rng: random.Random) -> None:
    """A stream in which every frame must have exactly one result, by its id."""
    ids = [f"{rng.getrandbits(64):x}" for _ in range(rng.randint(5, 40))]
    ordering = rng.choice([stream_pb2.RESULT_ORDERING_INPUT, stream_pb2.RESULT_ORDERING_COMPLETION])
    overflow = rng.choice([stream_pb2.OVERFLOW_POLICY_BLOCK, stream_pb2.OVERFLOW_POLICY_DROP_OLDEST])

    async def messages() -> AsyncIterator[stream_pb2.InferStreamRequest]:
        yield stream_pb2.InferStreamRequest(
            config=stream_pb2.StreamConfig(max_in_flight=4, ordering=ordering, overflow=overflow)
        )
        for frame_id in ids:
            yield stream_pb2.InferStreamRequest(frame=stream_pb2.Frame(frame_id=frame_id, image=rng.choice(TEST)))

    answered = [
        response.result.frame_id
        async for response in stub.InferStream(messages(), timeout=300)
        if response.WhichOneof("payload") == "result"
    ]
    tally.frames_sent += len(ids)
    tally.frames_answered += len(answered)
    tally.problems["frames lost"] += len(set(ids) - set(answered))
    tally.problems["frames repeated"] += len(answered) - len(set(answered))
    tally.problems["frames out of order"] += ordering == stream_pb2.RESULT_ORDERING_INPUT and answered != ids
    tally.done["stream"] += 1


async def _cancel(stub: Stub, tally: _Tally, rng: random.Random) -> None:
    """A client that cancels a call or a stream before its end."""

    async def messages() -> AsyncIterator[stream_pb2.InferStreamRequest]:
        yield stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig(max_in_flight=8))
        while True:
            yield stream_pb2.InferStreamRequest(frame=stream_pb2.Frame(image=rng.choice(TEST)))

    call = (
        stub.Infer(inference_pb2.InferRequest(image=rng.choice(TEST)))
        if rng.random() < 0.5
        else stub.InferStream(messages())
    )
    await asyncio.sleep(rng.random() * 0.5)
    call.cancel()
    tally.done["cancelled"] += 1
    await asyncio.sleep(0.1)


async def _invalid(stub: Stub, tally: _Tally, rng: random.Random) -> None:
    request = rng.choice(
        [
            *(inference_pb2.InferRequest(image=data) for data in _INVALID_IMAGES),
            inference_pb2.InferRequest(image=TEST[0], reference_id="unknown"),
            inference_pb2.InferRequest(image=TEST[0], reference_id="../../etc"),
            inference_pb2.InferRequest(image=TEST[0], output=inference_pb2.OutputOptions(sensitivity=float("nan"))),
        ]
    )
    try:
        await stub.Infer(request, timeout=60)
        tally.problems["invalid input was accepted"] += 1
    except aio.AioRpcError as error:
        expected = {"EMPTY_IMAGE", "UNDECODABLE_IMAGE", "REFERENCE_NOT_FOUND", "INVALID_FIELD", *_LOAD_REASONS}
        tally.problems[f"invalid input {reason_of(error)}"] += reason_of(error) not in expected
    tally.done["invalid input"] += 1
    await asyncio.sleep(0.05)


async def _change(stub: Stub, tally: _Tally, rng: random.Random) -> None:
    name = f"other-{rng.randint(0, 2)}"
    try:
        await load(stub, name, rng.sample(GOOD, 2))
        await stub.ListReferences(reference_pb2.ListReferencesRequest())
        if rng.random() < 0.5:
            await stub.DeleteReference(reference_pb2.DeleteReferenceRequest(reference_id=name))
    except aio.AioRpcError as error:
        if reason_of(error) not in {*_LOAD_REASONS, "REFERENCE_NOT_FOUND", "REFERENCE_CHANGED"}:
            tally.problems[f"change {reason_of(error)}"] += 1
    tally.done["change"] += 1
    await asyncio.sleep(1)


_KINDS: tuple[Callable[[Stub, _Tally, random.Random], Awaitable[None]], ...] = (
    *(_unary, _unary, _unary, _stream, _stream, _stream),
    *(_cancel, _cancel, _invalid, _change),
)


async def _client_loop(number: int, address: str, tally: _Tally) -> None:
    """One client, which reconnects from time to time."""
    kind, rng = _KINDS[number], random.Random(number)
    while True:
        async with client(address) as stub:
            for _ in range(rng.randint(1, 20)):
                await kind(stub, tally, rng)
        tally.done["connections"] += 1


async def run(duration_s: float) -> Result:
    tally, samples = _Tally(), list[ResourceUse]()
    async with server("--client-share", "1") as running:
        async with client(running.address) as stub:
            await load(stub)
        clients = [asyncio.create_task(_client_loop(number, running.address, tally)) for number in range(len(_KINDS))]
        with progress() as bar:
            bar_task = bar.add_task("soak", total=_SAMPLES)
            for _ in range(_SAMPLES):
                await asyncio.wait(clients, timeout=duration_s / _SAMPLES, return_when=asyncio.FIRST_EXCEPTION)
                for task in clients:
                    if task.done():
                        task.result()
                samples.append(running.resource_use())
                bar.advance(bar_task)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await asyncio.sleep(3)
        idle, exit_code = running.resource_use(), await running.stop()
        errors = running.log.count("INTERNAL") + running.log.count("Traceback")
    # The first quarter is the warm-up: memory that grows once does so then.
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    medians = {
        name: [statistics.median(asdict(sample)[name] for sample in part) for part in (early, late)]
        for name in asdict(idle)
    }
    return {
        "duration_s": duration_s,
        "done": dict(tally.done),
        "frames_sent": tally.frames_sent,
        "frames_answered": tally.frames_answered,
        "problems": {name: count for name, count in tally.problems.items() if count},
        "errors_in_log": errors,
        "medians_of_second_and_last_quarter": medians,
        "rss_mib": [round(sample.rss_mib) for sample in samples],
        "rss_ratio": medians["rss_mib"][1] / medians["rss_mib"][0],
        "idle_after": asdict(idle),
        "exit_code": exit_code,
    }
