"""A call through Ray's proxy beside a call of a server with a port: the same fake engine, in turn.

PYTHONPATH=server:client:protos/python .venv/bin/python benchmarks/bench_ray.py --rounds 3 --window-s 2

The callers, Ray's processes and the servers share the cores: only ratios of one run say something.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import numpy as np
from e2e.harness import MESSAGE_OPTIONS, connect, load
from e2e.ray_cluster import ray_cluster
from fakes.images import card, encoded
from grpc import aio
from PIL import Image

from patchserve.v1 import service_pb2_grpc
from patchserve.v1.inference_pb2 import InferRequest

REFERENCE = "cards"
# A server in a process of its own: its standard input is open as long as it is needed.
PLAIN = """
import sys
from e2e.in_process import in_process_server
with in_process_server(threads=1, log_calls="failed") as address:
    print(address, flush=True)
    sys.stdin.read()
"""


def large_image() -> bytes:
    """2 MB: what Ray does not send inside of a message."""
    pixels = np.random.default_rng(0).integers(0, 255, (600, 1200, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "BMP")


async def measure(address: str, image: bytes, callers: int, window_s: float) -> tuple[float, float]:
    """Calls per second, and the median time of a call in milliseconds."""
    times: list[float] = []
    async with aio.insecure_channel(address, MESSAGE_OPTIONS) as channel:
        stub = service_pb2_grpc.PatchCoreServiceStub(channel)
        end = time.perf_counter() + window_s

        async def call() -> None:
            while (begin := time.perf_counter()) < end:
                await stub.Infer(InferRequest(reference_id=REFERENCE, image=image))
                times.append(time.perf_counter() - begin)

        await asyncio.gather(*(call() for _ in range(callers)))
    return len(times) / window_s, statistics.median(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window-s", type=float, default=2)
    options = parser.parse_args()
    paths = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
    with (
        tempfile.TemporaryDirectory() as folder,
        ray_cluster(Path(folder) / "log") as cluster,
        subprocess.Popen(
            [sys.executable, "-c", PLAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        ) as plain,
    ):
        assert plain.stdout is not None
        cluster.deploy(threads=1)
        servers = {"a port": plain.stdout.readline().strip(), "Ray": cluster.address}
        for address in servers.values():
            with connect(address) as stub:
                load(stub, REFERENCE)
        for kind, image in {"7 KB": encoded(card(7)), "2 MB": large_image()}.items():
            for callers in (1, 8):
                found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
                for _ in range(options.rounds):
                    for name, address in servers.items():
                        found[name].append(asyncio.run(measure(address, image, callers, options.window_s)))
                for name, each in found.items():
                    rate, time_ms = (statistics.median(values) for values in zip(*each, strict=True))
                    print(f"{kind}, {callers} callers, {name}: {rate:.0f} calls/s, {time_ms:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
