"""Everything that callers do, for a long time: nothing lost, nothing doubled, nothing that grows."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict

from grpc import aio

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from reliability.scene import GOOD, TEST, Result, Stub, Vitals, client, load, progress, reason_of, server

_SAMPLES = 60
_BAD = [b"", b"no image", TEST[0][:2000], b"\x89PNG\r\n\x1a\n" + bytes(100), TEST[0][:-500] + bytes(400)]
_UNDER_LOAD = {"QUEUE_FULL"}


class _Tally:
    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.frames_sent = 0
        self.frames_answered = 0


async def _unary(stub: Stub, tally: _Tally, dice: random.Random) -> None:
    output = inference_pb2.OutputOptions(overlay=dice.random() < 0.5, score_map=dice.random() < 0.2)
    try:
        answer = await stub.Infer(inference_pb2.InferRequest(image=dice.choice(TEST), output=output), timeout=60)
    except aio.AioRpcError as error:
        if reason_of(error) not in _UNDER_LOAD:
            tally.wrong[f"unary {reason_of(error)}"] += 1
        await asyncio.sleep(0.2)
        return
    tally.done["unary"] += 1
    tally.wrong["unary without overlay"] += output.overlay and not answer.overlay_png


async def _stream(stub: Stub, tally: _Tally, dice: random.Random) -> None:
    """Every frame has one answer, by its id."""
    ids = [f"{dice.getrandbits(64):x}" for _ in range(dice.randint(5, 40))]
    ordering = dice.choice([stream_pb2.RESULT_ORDERING_INPUT, stream_pb2.RESULT_ORDERING_COMPLETION])
    overflow = dice.choice([stream_pb2.OVERFLOW_POLICY_BLOCK, stream_pb2.OVERFLOW_POLICY_DROP_OLDEST])

    async def messages() -> AsyncIterator[stream_pb2.InferStreamRequest]:
        yield stream_pb2.InferStreamRequest(
            config=stream_pb2.StreamConfig(max_in_flight=4, ordering=ordering, overflow=overflow)
        )
        for frame_id in ids:
            yield stream_pb2.InferStreamRequest(frame=stream_pb2.Frame(frame_id=frame_id, image=dice.choice(TEST)))

    answered = [
        answer.result.frame_id
        async for answer in stub.InferStream(messages(), timeout=300)
        if answer.WhichOneof("payload") == "result"
    ]
    tally.frames_sent += len(ids)
    tally.frames_answered += len(answered)
    tally.wrong["frames lost"] += len(set(ids) - set(answered))
    tally.wrong["frames doubled"] += len(answered) - len(set(answered))
    tally.wrong["frames out of order"] += ordering == stream_pb2.RESULT_ORDERING_INPUT and answered != ids
    tally.done["stream"] += 1


async def _cancelled(stub: Stub, tally: _Tally, dice: random.Random) -> None:
    """A caller who leaves in the middle, of a call or of a stream."""

    async def messages() -> AsyncIterator[stream_pb2.InferStreamRequest]:
        yield stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig(max_in_flight=8))
        while True:
            yield stream_pb2.InferStreamRequest(frame=stream_pb2.Frame(image=dice.choice(TEST)))

    call = (
        stub.Infer(inference_pb2.InferRequest(image=dice.choice(TEST)))
        if dice.random() < 0.5
        else stub.InferStream(messages())
    )
    await asyncio.sleep(dice.random() * 0.5)
    call.cancel()
    tally.done["cancelled"] += 1
    await asyncio.sleep(0.1)


async def _bad(stub: Stub, tally: _Tally, dice: random.Random) -> None:
    request = dice.choice(
        [
            *(inference_pb2.InferRequest(image=bad) for bad in _BAD),
            inference_pb2.InferRequest(image=TEST[0], reference_id="nowhere"),
            inference_pb2.InferRequest(image=TEST[0], reference_id="../../etc"),
            inference_pb2.InferRequest(image=TEST[0], output=inference_pb2.OutputOptions(sensitivity=float("nan"))),
        ]
    )
    try:
        await stub.Infer(request, timeout=60)
        tally.wrong["bad input was taken"] += 1
    except aio.AioRpcError as error:
        good = reason_of(error) in {"EMPTY_IMAGE", "UNDECODABLE_IMAGE", "REFERENCE_NOT_FOUND", "INVALID_FIELD"}
        tally.wrong[f"bad input {reason_of(error)}"] += not (good or reason_of(error) in _UNDER_LOAD)
    tally.done["bad input"] += 1
    await asyncio.sleep(0.05)


async def _changes(stub: Stub, tally: _Tally, dice: random.Random) -> None:
    name = f"other-{dice.randint(0, 2)}"
    try:
        await load(stub, name, dice.sample(GOOD, 2))
        await stub.ListReferences(reference_pb2.ListReferencesRequest())
        if dice.random() < 0.5:
            await stub.DeleteReference(reference_pb2.DeleteReferenceRequest(reference_id=name))
    except aio.AioRpcError as error:
        if reason_of(error) not in {*_UNDER_LOAD, "REFERENCE_NOT_FOUND", "REFERENCE_CHANGED"}:
            tally.wrong[f"change {reason_of(error)}"] += 1
    tally.done["change"] += 1
    await asyncio.sleep(1)


_KINDS: tuple[Callable[[Stub, _Tally, random.Random], Awaitable[None]], ...] = (
    *(_unary, _unary, _unary, _stream, _stream, _stream),
    *(_cancelled, _cancelled, _bad, _changes),
)


async def _caller(number: int, address: str, tally: _Tally) -> None:
    """Connects anew now and then."""
    kind, dice = _KINDS[number], random.Random(number)
    while True:
        async with client(address) as stub:
            for _ in range(dice.randint(1, 20)):
                await kind(stub, tally, dice)
        tally.done["connections"] += 1


async def run(duration_s: float) -> Result:
    tally, samples = _Tally(), list[Vitals]()
    async with server("--client-share", "1") as running:
        async with client(running.address) as stub:
            await load(stub)
        callers = [asyncio.create_task(_caller(number, running.address, tally)) for number in range(len(_KINDS))]
        with progress() as bar:
            task = bar.add_task("soak", total=_SAMPLES)
            for _ in range(_SAMPLES):
                await asyncio.wait(callers, timeout=duration_s / _SAMPLES, return_when=asyncio.FIRST_EXCEPTION)
                for caller in callers:
                    if caller.done():
                        caller.result()
                samples.append(running.vitals())
                bar.advance(task)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await asyncio.sleep(3)
        idle, code = running.vitals(), await running.stop()
        errors = running.log.count("INTERNAL") + running.log.count("Traceback")
    # The first quarter is for what grows to its size once.
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    middle = {
        name: [statistics.median(asdict(one)[name] for one in part) for part in (early, late)] for name in asdict(idle)
    }
    return {
        "duration_s": duration_s,
        "done": dict(tally.done),
        "frames_sent": tally.frames_sent,
        "frames_answered": tally.frames_answered,
        "wrong": {name: count for name, count in tally.wrong.items() if count},
        "errors_in_log": errors,
        "second_and_last_quarter": middle,
        "rss_mib": [round(one.rss_mib) for one in samples],
        "rss_ratio": middle["rss_mib"][1] / middle["rss_mib"][0],
        "idle_after": asdict(idle),
        "exit_code": code,
    }
