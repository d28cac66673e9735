"""Messages made to hurt: as large as allowed, of the smallest parts; and calls that hold a place and send nothing.

Each attack runs against a server of its own. Others call it meanwhile, from another address.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from patchserve.kserve import open_inference_pb2
from patchserve.v1 import inference_pb2, service_pb2, stream_pb2
from patchserve_client._aio_status import server_status_first
from reliability import others
from reliability.harness import (
    CHANNEL_OPTIONS,
    PARCELS,
    Result,
    Server,
    client,
    load,
    percentile,
    progress,
    reason_of,
    server,
)
from reliability.source_address import relayed

_MIB = 2**20
_OURS, _KSERVE, _HEALTH = "/patchserve.v1.PatchCoreService", "/inference.GRPCInferenceService", "/grpc.health.v1.Health"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_SERVICES = [
    service
    for file in (service_pb2, open_inference_pb2, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]
_IMAGE = min((PARCELS / "test").rglob("*.jpg"))
_HOLD_S = 4.0  # how long a call without a message, or with a message that is not refused, is kept open
_SETTLED_AFTER_S = 12.0  # freed memory goes back to the system every 5 s
_CONFIG = stream_pb2.InferStreamRequest(config=stream_pb2.StreamConfig()).SerializeToString()


def _varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data, value = data + bytes([value & 0x7F | 0x80]), value >> 7
    return data + bytes([value])


def _delimited(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _text(number: int, size: int) -> bytes:
    return _delimited(number, b"a" * size)


def _empty(number: int, size: int) -> bytes:
    """Empty messages, two bytes each."""
    return _delimited(number, b"") * (size // 2)


def _uint_contents(size: int) -> bytes:
    side = int((size / 3) ** 0.5)
    shape = _delimited(3, b"".join(map(_varint, (side, side, 3))))
    contents = _delimited(5, _delimited(4, bytes(3 * side * side)))
    tensor = _text(1, 0) + _delimited(1, b"pixels") + _delimited(2, b"UINT8") + shape + contents
    return _delimited(1, b"default") + _delimited(5, tensor)


def _parts(path: tuple[int, ...], size: int) -> list[bytes]:
    """A message of the largest size, of the smallest parts that reach the field at this path."""
    part = b""
    for number in reversed(path):
        part = _delimited(number, part)
    return [part * (size // len(part))]


def _paths(message: Descriptor) -> Iterator[tuple[int, ...]]:
    for part in message.fields:
        yield (part.number,)
        if part.message_type is not None:
            yield from ((part.number, *path) for path in _paths(part.message_type))


def _every_method() -> Iterator[tuple[str, int, Callable[[int], list[bytes]]]]:
    """A call for each field of each method's request."""
    for service in _SERVICES:
        for method in service.methods:
            for path in _paths(method.input_type):
                yield f"/{service.full_name}/{method.name}", 1, partial(_parts, path)


@dataclass(frozen=True)
class Attack:
    """Calls of one kind.

    Args:
        calls: methods, the number of calls of each, and their messages, from the size of the largest.
        at_once: how many calls of an attacker are open at a time.
        attackers: how many there are, each from an address of its own.
    """

    calls: tuple[tuple[str, int, Callable[[int], list[bytes]]], ...]
    at_once: int = 10
    attackers: int = 1


def _one(method: str, count: int, message: Callable[[int], bytes], at_once: int = 10) -> Attack:
    return Attack(((method, count, lambda size: [message(size)]),), at_once)


def _nothing(_size: int) -> list[bytes]:
    return []


ATTACKS: dict[str, Attack] = {
    "ModelInfer, empty inputs": _one(f"{_KSERVE}/ModelInfer", 12, partial(_empty, 5), 6),
    "health Check, long name": _one(f"{_HEALTH}/Check", 40, partial(_text, 1)),
    "health Watch, long name": _one(f"{_HEALTH}/Watch", 25, partial(_text, 1), 25),
    "reflection, long name": _one(_REFLECTION, 25, partial(_text, 3), 25),
    "GetReference, long id": _one(f"{_OURS}/GetReference", 60, partial(_text, 1)),
    "LoadReference, empty pictures": _one(f"{_OURS}/LoadReference", 4, partial(_empty, 2), 2),
    "Infer, long id": _one(f"{_OURS}/Infer", 20, partial(_text, 1)),
    "InferStream, long frame_id": Attack(
        ((f"{_OURS}/InferStream", 2, lambda size: [_CONFIG, *[_delimited(2, _text(1, size))] * 8]),), 2
    ),
    "every field of every method, smallest parts": Attack(tuple(_every_method()), at_once=4),
    "ModelInfer, uint_contents": _one(f"{_KSERVE}/ModelInfer", 16, _uint_contents, 8),
    "headers only, two addresses": Attack(
        (
            (f"{_OURS}/Infer", 32, _nothing),
            (f"{_OURS}/LoadReference", 2, _nothing),
            (f"{_OURS}/InferStream", 100, _nothing),
            (f"{_OURS}/InferStream", 100, lambda _: [_CONFIG]),
            (f"{_HEALTH}/Check", 100, _nothing),
            (f"{_HEALTH}/Watch", 100, _nothing),
        ),
        at_once=500,
        attackers=2,
    ),
}


@dataclass
class _Tally:
    outcomes: Counter[str] = field(default_factory=Counter)
    peak_rss_mib: float = 0.0


async def _send(
    channel: aio.Channel, method: str, messages: Callable[[], list[bytes]], tally: _Tally, turn: asyncio.Semaphore
) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for message in messages():
            yield message
        await asyncio.sleep(_HOLD_S)  # keeps the call open

    async with turn:
        stream: Any = channel.stream_stream(method)
        call = stream(requests(), timeout=60)
        try:
            async with server_status_first(call):
                async for _ in call:
                    pass
            tally.outcomes["accepted"] += 1
        except aio.AioRpcError as error:
            tally.outcomes[reason_of(error)] += 1


async def _attack(attack: Attack, port: int, size: int, tally: _Tally) -> None:
    """Sends all calls of the attack and waits for their ends."""
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        channels = []
        for number in range(attack.attackers):
            address = await stack.enter_async_context(relayed(f"127.0.0.{2 + number}", port))
            channels.append(await stack.enter_async_context(aio.insecure_channel(address, options)))
        turns = [asyncio.Semaphore(attack.at_once) for _ in channels]
        calls = [
            call for method, count, messages in attack.calls for call in [(method, partial(messages, size))] * count
        ]
        await asyncio.gather(
            *(
                _send(channel, method, messages, tally, turn)
                for method, messages in calls
                for channel, turn in zip(channels, turns, strict=True)
            )
        )


async def _watch_memory(running: Server, tally: _Tally) -> None:
    while True:
        tally.peak_rss_mib = max(tally.peak_rss_mib, running.resource_use().rss_mib)
        await asyncio.sleep(0.02)


async def attacked(name: str, size_mib: int, settled_after_s: float = _SETTLED_AFTER_S) -> Result:
    """One attack on a server of its own, with messages of this size. Its memory is looked at again some time later."""
    attack, size = ATTACKS[name], size_mib * _MIB
    tally, pipe = _Tally(), asyncio.subprocess.PIPE
    async with server() as running:
        port = int(running.address.rpartition(":")[2])
        async with client(running.address) as stub:
            await load(stub)
            for _ in range(10):
                await stub.Infer(inference_pb2.InferRequest(image=_IMAGE.read_bytes()))
        arguments = "-m", others.__name__, str(port), str(_IMAGE)
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[1]
        )
        assert process.stdout is not None
        await process.stdout.readline()
        before_mib = running.resource_use().rss_mib
        watching = asyncio.create_task(_watch_memory(running, tally))
        started_s = time.perf_counter()
        await _attack(attack, port, size, tally)
        took_s = time.perf_counter() - started_s
        seen = json.loads((await process.communicate(b"\n"))[0])
        await asyncio.sleep(settled_after_s)
        watching.cancel()
        return {
            "outcomes": dict(tally.outcomes),
            "took_s": took_s,
            "rss_before_mib": before_mib,
            "rss_peak_mib": tally.peak_rss_mib,
            "rss_after_mib": running.resource_use().rss_mib,
            "others_infer_p99_ms": percentile(seen["took_ms"]["infer"], 0.99),
            "others_health_p99_ms": percentile(seen["took_ms"]["health"], 0.99),
            "others_calls": len(seen["took_ms"]["infer"]) + len(seen["took_ms"]["health"]),
            "others_failed": seen["failed"]["infer"] + seen["failed"]["health"],
            "tracebacks_in_log": running.log.count("Traceback"),
            "exit_code": await running.stop(),
        }


async def run(size_mib: int) -> Result:
    """All attacks, with messages of this size."""
    results: Result = {}
    with progress() as bar:
        bar_task = bar.add_task("messages", total=len(ATTACKS))
        for name in ATTACKS:
            results[name] = await attacked(name, size_mib)
            bar.advance(bar_task)
    return results
