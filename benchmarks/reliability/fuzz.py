"""Invalid images, messages and streams, a hundred thousand of them. None may cause an INTERNAL error."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from grpc import aio
from PIL import Image

from patchserve.v1 import inference_pb2, stream_pb2
from reliability.harness import (
    CHANNEL_OPTIONS,
    TEST,
    Result,
    Server,
    Stub,
    client,
    load,
    progress,
    reason_in,
    reason_of,
    server,
)

_SIDE_PX = 48  # small, so that inputs that are still valid images take little time
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_WORKERS = 16
_CHECK_INTERVAL = 500  # inputs between two looks at memory and reference
_SERVICE = "/patchserve.v1.PatchCoreService"
_BUGS = {"INTERNAL", "UNKNOWN"}
_NUMBERS = (0.0, -1.0, 1e308, float("nan"), float("inf"), -float("inf"), 1e-300)


def _images() -> list[bytes]:
    """Small files of each format, some with EXIF data or several pages."""
    image = Image.open(io.BytesIO(TEST[0])).convert("RGB").resize((_SIDE_PX, _SIDE_PX))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a text" * 20
    files = []
    for name in _FORMATS:
        buffer = io.BytesIO()
        options: dict[str, Any] = {"exif": exif} if name in ("JPEG", "PNG", "WEBP", "TIFF") else {}
        image.save(buffer, name, **options)
        files.append(buffer.getvalue())
    for mode in ("L", "1", "P", "RGBA", "I;16", "CMYK"):
        buffer = io.BytesIO()
        image.convert("L").convert(mode).save(buffer, "TIFF")
        files.append(buffer.getvalue())
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", save_all=True, append_images=[image] * 3)
    return [*files, buffer.getvalue()]


def _mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Random changes: bytes replaced, deleted or repeated, extreme numbers, parts of another file, truncation."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        limit = len(changed) if rng.random() < 0.5 else min(len(changed), 128)
        start = rng.randrange(limit + 1)
        match rng.randrange(7):
            case 0:
                changed[start : start + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[start : start + rng.randint(1, 64)]
            case 2:
                changed[start:start] = changed[start : start + rng.randint(1, 64)]
            case 3:
                changed[start : start + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff"]
                )
            case 4:
                other = rng.choice(others)
                other_start = rng.randrange(len(other))
                changed[start : start + 32] = other[other_start : other_start + 32]
            case 5:
                changed[start : start + 2] = rng.choice([b"\xff\xff", b"\x00\x01", b"\x80\x00"])
            case _:
                del changed[start:]
    return bytes(changed)


class _Tally:
    def __init__(self) -> None:
        self.inputs: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.bugs: list[str] = []

    def add_error(self, error: aio.AioRpcError, describe_input: Callable[[], str]) -> None:
        if error.details() == "Internal error from Core":
            # The client of grpc.aio lost the server's status because it was still sending.
            self.outcomes["status lost by the client"] += 1
            return
        reason = reason_of(error)
        self.outcomes[reason] += 1
        if reason in _BUGS or error.code().name in _BUGS:
            self.bugs.append(f"{describe_input()}: {error.details()}")


async def _send_image(stub: Stub, tally: _Tally, rng: random.Random, files: list[bytes]) -> None:
    data = _mutated(rng.choice(files), rng, files)
    output = inference_pb2.OutputOptions(overlay=rng.random() < 0.1)
    tally.inputs["images"] += 1
    try:
        await stub.Infer(inference_pb2.InferRequest(image=data, output=output), timeout=60)
        tally.outcomes["accepted"] += 1
    except aio.AioRpcError as error:
        tally.add_error(error, data.hex)


def _options(rng: random.Random) -> inference_pb2.OutputOptions:
    options = inference_pb2.OutputOptions(
        overlay=rng.random() < 0.2, overlay_max_side_px=rng.choice([0, 1, 40, 2**32 - 1])
    )
    if rng.random() < 0.5:
        options.sensitivity = rng.choice(_NUMBERS)
    if rng.random() < 0.5:
        options.max_regions = rng.choice([0, 1, 2**32 - 1])
    options.heatmap_scale = rng.choice([0, 1, 2, 99, -1])  # type: ignore[assignment]
    options.overlay_format = rng.choice([0, 1, 2, 3, 99])  # type: ignore[assignment]
    return options


def _message(rng: random.Random, files: list[bytes]) -> stream_pb2.InferStreamRequest:
    match rng.randrange(4):
        case 0:
            return stream_pb2.InferStreamRequest()
        case 1:
            config = stream_pb2.StreamConfig(
                reference_id=rng.choice(["", "default", "unknown", "..", "\x00", "x" * 200]),
                max_in_flight=rng.choice([0, 1, 2**32 - 1]),
                output=_options(rng),
            )
            config.overflow, config.ordering = rng.choice([0, 1, 2, 77]), rng.choice([0, 1, 2, 77])  # type: ignore[assignment]
            if rng.random() < 0.3:
                config.frame_timeout.seconds = rng.choice([0, 1, -1, 2**62])
                config.frame_timeout.nanos = rng.choice([0, 1, -1, 2**31 - 1])
            return stream_pb2.InferStreamRequest(config=config)
        case _:
            frame = stream_pb2.Frame(frame_id="f" * rng.choice([0, 1, 128, 129]))
            frame.image = _mutated(rng.choice(files), rng, files) if rng.random() < 0.5 else rng.choice(files)
            frame.capture_time.seconds = rng.choice([0, 1, -(2**62), 2**62])
            return stream_pb2.InferStreamRequest(frame=frame)


async def _send_stream(stub: Stub, tally: _Tally, rng: random.Random, files: list[bytes]) -> None:
    """Messages in any order: the config twice, a frame first, or no message."""
    messages = [_message(rng, files) for _ in range(rng.randrange(6))]
    if rng.random() < 0.5:
        messages.insert(0, stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig()))
    tally.inputs["messages of streams"] += len(messages)

    async def requests() -> AsyncIterator[stream_pb2.InferStreamRequest]:
        for message in messages:
            yield message

    try:
        async for response in stub.InferStream(requests(), timeout=60):
            if response.WhichOneof("payload") == "result" and response.result.HasField("error"):
                reason = reason_in(response.result.error)
                tally.outcomes[reason] += 1
                if reason in _BUGS:
                    tally.bugs.append(response.result.error.message)
        tally.outcomes["accepted"] += 1
    except aio.AioRpcError as error:
        tally.add_error(error, lambda: " ".join(message.SerializeToString().hex() for message in messages))


async def _send_bytes(channel: aio.Channel, tally: _Tally, rng: random.Random, files: list[bytes]) -> None:
    """Bytes that may not even be a message, to every unary method."""
    request = inference_pb2.InferRequest(image=files[0], reference_id="default", output=_options(rng))
    data = _mutated(request.SerializeToString(), rng, files)
    method = rng.choice(
        [
            "Infer",
            "LoadReference",
            "GetReference",
            "ListReferences",
            "TuneReference",
            "RestoreReference",
            "GetReferenceImage",
            "DeleteReference",
            "GetServerInfo",
        ]
    )
    raw: Any = channel.unary_unary(f"{_SERVICE}/{method}")
    tally.inputs["bytes"] += 1
    try:
        await raw(data, timeout=60)
        tally.outcomes["accepted"] += 1
    except aio.AioRpcError as error:
        tally.add_error(error, data.hex)


@dataclass
class _Fuzzer:
    """What the workers share: the server, the numbers of the inputs still to be sent, and the results so far."""

    running: Server
    stub: Stub
    seed: int
    numbers: Iterator[int]
    files: list[bytes] = field(default_factory=_images)
    tally: _Tally = field(default_factory=_Tally)
    sent: int = 0
    peak_rss_mib: float = 0.0

    async def work(self, show_progress: Callable[[int], None]) -> None:
        """Send inputs, on a connection of its own for raw bytes, until all numbers are taken."""
        async with aio.insecure_channel(self.running.address, CHANNEL_OPTIONS) as channel:
            for number in self.numbers:
                await self._send(number, channel)
                self.sent += 1
                if self.sent % _CHECK_INTERVAL == 0:
                    self.peak_rss_mib = max(self.peak_rss_mib, self.running.resource_use().rss_mib)
                    show_progress(self.sent)
                    try:
                        await load(self.stub)  # some bytes may have deleted or replaced the reference
                    except aio.AioRpcError as error:
                        self.tally.add_error(error, lambda: "a load")

    async def _send(self, number: int, channel: aio.Channel) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        match number % 10:
            case 0:
                await _send_stream(self.stub, self.tally, rng, self.files)
            case 1:
                await _send_bytes(channel, self.tally, rng, self.files)
            case _:
                await _send_image(self.stub, self.tally, rng, self.files)


async def run(count: int, seed: int = 0) -> Result:
    started_s = time.perf_counter()
    async with server("--client-share", "1") as running, client(running.address) as stub:
        await load(stub)
        rss_before_mib = running.resource_use().rss_mib
        fuzzer = _Fuzzer(running, stub, seed, iter(range(count)), peak_rss_mib=rss_before_mib)
        with progress() as bar:
            bar_task = bar.add_task("fuzz", total=count)

            def show_progress(sent: int) -> None:
                bar.update(bar_task, completed=sent)

            await asyncio.gather(*(fuzzer.work(show_progress) for _ in range(_WORKERS)))
        rss_after_mib, is_alive = running.resource_use().rss_mib, running.process.returncode is None
        traces = running.log.count("Traceback")
        exit_code = await running.stop()
    tally = fuzzer.tally
    return {
        "inputs": dict(tally.inputs),
        "outcomes": dict(tally.outcomes.most_common()),
        "bugs": tally.bugs[:20],
        "bug_count": len(tally.bugs),
        "tracebacks_in_log": traces,
        "alive_at_the_end": is_alive,
        "exit_code": exit_code,
        "rss_mib": {"before": rss_before_mib, "peak": fuzzer.peak_rss_mib, "after": rss_after_mib},
        "took_s": time.perf_counter() - started_s,
    }
