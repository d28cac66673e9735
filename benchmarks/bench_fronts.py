"""Calls per second with an engine that computes nothing: one process, and several fronts in turn.

    PYTHONPATH=server:client:protos/python .venv/bin/python benchmarks/bench_fronts.py --rounds 3 --window-s 4

The callers need as much of the cores as the server does, so the processor time of a call says more than the calls per
second: the process that needs most would be full first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from e2e.harness import connect, load
from e2e.processes import SeveralProcesses
from fakes.gray import gray_png
from grpc import aio

from patchserve.v1 import service_pb2_grpc
from patchserve.v1.inference_pb2 import InferRequest

CALLERS = 16
IMAGE = gray_png(100)
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def processes(server: SeveralProcesses) -> dict[str, int]:
    names = ["engine", *(f"front {number}" for number in range(server.fronts))] if server.fronts > 1 else []
    return {"parent": server.process.pid, **{name: server.pid_of(name) for name in names}}


async def measure(server: SeveralProcesses, window_s: float, channels: int) -> tuple[float, dict[str, float]]:
    """Calls per second, and the milliseconds of processor time of a call in each process."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with _Channels([aio.insecure_channel(server.address, options) for _ in range(channels)]) as opened:
        stubs = [service_pb2_grpc.PatchCoreServiceStub(channel) for channel in opened]
        request, count = InferRequest(image=IMAGE), 0
        end_s = time.perf_counter() + window_s

        async def call(stub: service_pb2_grpc.PatchCoreServiceStub) -> None:
            nonlocal count
            while time.perf_counter() < end_s:
                await stub.Infer(request)  # type: ignore[misc] # the stubs of mypy are those of synchronous calls
                count += 1

        before = {name: cpu_s(pid) for name, pid in processes(server).items()}
        started_s = time.perf_counter()
        await asyncio.gather(*(call(stubs[number % channels]) for number in range(CALLERS)))
        took_s = time.perf_counter() - started_s
        used = {name: 1000 * (cpu_s(pid) - before[name]) / count for name, pid in processes(server).items()}
        return count / took_s, used


class _Channels:
    """Closes channels at the end."""

    def __init__(self, channels: list[aio.Channel]) -> None:
        self._channels = channels

    async def __aenter__(self) -> list[aio.Channel]:
        return self._channels

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window-s", type=float, default=4)
    parser.add_argument("--fronts", type=int, default=2)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        servers = {}
        for fronts in (1, arguments.fronts):
            servers[fronts] = server = SeveralProcesses("--client-share", "1", fronts=fronts)
            stack.callback(server.stop)
            server.wait_ready()
            with connect(server.address) as stub:
                load(stub, "default", 1)
        for _ in range(arguments.rounds):
            for fronts, server in servers.items():
                for channels in (1, 8):
                    rate, used = asyncio.run(measure(server, arguments.window_s, channels))
                    found.setdefault(f"{fronts} fronts, {channels} channels", []).append(rate)
                    words = ", ".join(f"{name} {ms:.2f}" for name, ms in used.items())
                    print(f"{fronts} fronts, {channels} channels: {rate:.0f} calls/s; ms of cpu a call: {words}")
    for name, rates in found.items():
        print(f"{name}: median {statistics.median(rates):.0f} calls/s")


if __name__ == "__main__":
    main()
