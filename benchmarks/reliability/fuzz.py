"""Rubbish by the hundred thousand: images, messages and streams that nobody would send. None may be an INTERNAL."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from grpc import aio
from PIL import Image

from patchserve.v1 import inference_pb2, stream_pb2
from reliability.scene import MESSAGES, TEST, Result, Stub, client, load, progress, reason_in, reason_of, server

_SIDE_PX = 48  # so that what still is an image takes little time
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_WORKERS = 16
_SERVICE = "/patchserve.v1.PatchCoreService"
_BUGS = {"INTERNAL", "UNKNOWN"}
_NUMBERS = (0.0, -1.0, 1e308, float("nan"), float("inf"), -float("inf"), 1e-300)


def _images() -> list[bytes]:
    """One small file of each format, those with more than pixels among them."""
    image = Image.open(io.BytesIO(TEST[0])).convert("RGB").resize((_SIDE_PX, _SIDE_PX))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a text" * 20
    files = []
    for name in _FORMATS:
        buffer = io.BytesIO()
        more: dict[str, Any] = {"exif": exif} if name in ("JPEG", "PNG", "WEBP", "TIFF") else {}
        image.save(buffer, name, **more)
        files.append(buffer.getvalue())
    for mode in ("L", "1", "P", "RGBA", "I;16", "CMYK"):
        buffer = io.BytesIO()
        image.convert("L").convert(mode).save(buffer, "TIFF")
        files.append(buffer.getvalue())
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", save_all=True, append_images=[image] * 3)
    return [*files, buffer.getvalue()]


def _mutated(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """Some of: other bytes, bytes gone, bytes twice, an extreme number, another file's middle, cut off."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 1, 2, 4, 16])):
        at = dice.randrange(len(changed) + 1) if dice.random() < 0.5 else dice.randrange(min(len(changed), 128) + 1)
        match dice.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[at : at + dice.randint(1, 64)]
            case 2:
                changed[at:at] = changed[at : at + dice.randint(1, 64)]
            case 3:
                changed[at : at + 4] = dice.choice(
                    [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff"]
                )
            case 4:
                other = dice.choice(others)
                begin = dice.randrange(len(other))
                changed[at : at + 32] = other[begin : begin + 32]
            case 5:
                changed[at : at + 2] = dice.choice([b"\xff\xff", b"\x00\x01", b"\x80\x00"])
            case _:
                del changed[at:]
    return bytes(changed)


class _Tally:
    def __init__(self) -> None:
        self.inputs: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.bugs: list[str] = []

    def error(self, error: aio.AioRpcError, what: Callable[[], str]) -> None:
        if error.details() == "Internal error from Core":
            # grpc.aio's client, which lost the server's status while it was still sending.
            self.answers["status lost by the client"] += 1
            return
        reason = reason_of(error)
        self.answers[reason] += 1
        if reason in _BUGS or error.code().name in _BUGS:
            self.bugs.append(f"{what()}: {error.details()}")


async def _image(stub: Stub, tally: _Tally, dice: random.Random, files: list[bytes]) -> None:
    data = _mutated(dice.choice(files), dice, files)
    output = inference_pb2.OutputOptions(overlay=dice.random() < 0.1)
    tally.inputs["images"] += 1
    try:
        await stub.Infer(inference_pb2.InferRequest(image=data, output=output), timeout=60)
        tally.answers["taken"] += 1
    except aio.AioRpcError as error:
        tally.error(error, data.hex)


def _options(dice: random.Random) -> inference_pb2.OutputOptions:
    options = inference_pb2.OutputOptions(
        overlay=dice.random() < 0.2, overlay_max_side_px=dice.choice([0, 1, 40, 2**32 - 1])
    )
    if dice.random() < 0.5:
        options.sensitivity = dice.choice(_NUMBERS)
    if dice.random() < 0.5:
        options.max_regions = dice.choice([0, 1, 2**32 - 1])
    options.heatmap_scale = dice.choice([0, 1, 2, 99, -1])  # type: ignore[assignment]
    options.overlay_format = dice.choice([0, 1, 2, 3, 99])  # type: ignore[assignment]
    return options


def _message(dice: random.Random, files: list[bytes]) -> stream_pb2.InferStreamRequest:
    match dice.randrange(4):
        case 0:
            return stream_pb2.InferStreamRequest()
        case 1:
            config = stream_pb2.StreamConfig(
                reference_id=dice.choice(["", "default", "nowhere", "..", "\x00", "x" * 200]),
                max_in_flight=dice.choice([0, 1, 2**32 - 1]),
                output=_options(dice),
            )
            config.overflow, config.ordering = dice.choice([0, 1, 2, 77]), dice.choice([0, 1, 2, 77])  # type: ignore[assignment]
            if dice.random() < 0.3:
                config.frame_timeout.seconds = dice.choice([0, 1, -1, 2**62])
                config.frame_timeout.nanos = dice.choice([0, 1, -1, 2**31 - 1])
            return stream_pb2.InferStreamRequest(config=config)
        case _:
            frame = stream_pb2.Frame(frame_id="f" * dice.choice([0, 1, 128, 129]))
            frame.image = _mutated(dice.choice(files), dice, files) if dice.random() < 0.5 else dice.choice(files)
            frame.capture_time.seconds = dice.choice([0, 1, -(2**62), 2**62])
            return stream_pb2.InferStreamRequest(frame=frame)


async def _stream(stub: Stub, tally: _Tally, dice: random.Random, files: list[bytes]) -> None:
    """Messages in any order: config twice, frames first, none at all."""
    messages = [_message(dice, files) for _ in range(dice.randrange(6))]
    if dice.random() < 0.5:
        messages.insert(0, stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig()))
    tally.inputs["messages of streams"] += len(messages)

    async def sent() -> AsyncIterator[stream_pb2.InferStreamRequest]:
        for message in messages:
            yield message

    try:
        async for answer in stub.InferStream(sent(), timeout=60):
            if answer.WhichOneof("payload") == "result" and answer.result.HasField("error"):
                reason = reason_in(answer.result.error)
                tally.answers[reason] += 1
                if reason in _BUGS:
                    tally.bugs.append(f"{answer.result.error.message}")
        tally.answers["taken"] += 1
    except aio.AioRpcError as error:
        tally.error(error, lambda: " ".join(message.SerializeToString().hex() for message in messages))


async def _bytes(channel: aio.Channel, tally: _Tally, dice: random.Random, files: list[bytes]) -> None:
    """What is not even a message, to every kind of method."""
    request = inference_pb2.InferRequest(image=files[0], reference_id="default", output=_options(dice))
    data = _mutated(request.SerializeToString(), dice, files)
    method = dice.choice(
        ["Infer", "LoadReference", "GetReference", "ListReferences", "DeleteReference", "GetServerInfo"]
    )
    raw: Any = channel.unary_unary(f"{_SERVICE}/{method}")
    tally.inputs["bytes"] += 1
    try:
        await raw(data, timeout=60)
        tally.answers["taken"] += 1
    except aio.AioRpcError as error:
        tally.error(error, data.hex)


async def run(count: int, seed: int = 0) -> Result:
    tally, files, done = _Tally(), _images(), 0
    begun = time.perf_counter()

    def numbers() -> Iterator[int]:
        yield from range(count)

    async with server("--client-share", "1") as running, client(running.address) as stub:
        await load(stub)
        quiet = running.vitals()
        highest = quiet.rss_mib
        left = numbers()
        with progress() as bar:
            task = bar.add_task("fuzz", total=count)

            async def worker() -> None:
                nonlocal done, highest
                async with aio.insecure_channel(running.address, MESSAGES) as channel:
                    for number in left:
                        dice = random.Random(f"{seed}/{number}")
                        match number % 10:
                            case 0:
                                await _stream(stub, tally, dice, files)
                            case 1:
                                await _bytes(channel, tally, dice, files)
                            case _:
                                await _image(stub, tally, dice, files)
                        done += 1
                        if done % 500 == 0:
                            highest = max(highest, running.vitals().rss_mib)
                            bar.update(task, completed=done)
                            try:
                                await load(stub)  # in case some bytes deleted or replaced it
                            except aio.AioRpcError as error:
                                tally.error(error, lambda: "a load")

            await asyncio.gather(*(worker() for _ in range(_WORKERS)))
        last, alive = running.vitals(), running.process.returncode is None
        traces = running.log.count("Traceback")
        code = await running.stop()
    return {
        "inputs": dict(tally.inputs),
        "answers": dict(tally.answers.most_common()),
        "bugs": tally.bugs[:20],
        "bug_count": len(tally.bugs),
        "tracebacks_in_log": traces,
        "alive_at_the_end": alive,
        "exit_code": code,
        "rss_mib": {"before": quiet.rss_mib, "highest": highest, "after": last.rss_mib},
        "took_s": time.perf_counter() - begun,
    }
