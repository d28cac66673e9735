"""How long images wait when they arrive at random, by how busy the server is: what the autoscaler's threshold means.

The server has one core, the caller the others. First the capacity is measured, with callers that wait for each answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import time
import urllib.request

import grpc
from served import PARCELS, Load, load_reference, measure, server

from patchserve.v1 import inference_pb2, service_pb2_grpc

SHARES = (0.5, 0.67, 0.8, 0.9)  # of the capacity
CLIENTS = 8


def waited(metrics_url: str) -> tuple[float, float]:
    """The seconds that single images have waited so far, and their number."""
    with urllib.request.urlopen(metrics_url) as response:
        text = response.read().decode()
    values = dict(re.findall(r'^patchserve_queue_wait_seconds_(sum|count){kind="call"} (\S+)$', text, re.MULTILINE))
    return float(values["sum"]), float(values["count"])


async def send(address: str, images: list[bytes], rate_per_s: float, seconds: float, seed: int) -> None:
    """Sends images when they are due, whether earlier ones are answered or not."""
    intervals_s = random.Random(seed)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.PatchCoreServiceStub(channel)
        calls: list[grpc.aio.UnaryUnaryCall[inference_pb2.InferRequest, inference_pb2.InferResponse]] = []
        due_s = time.monotonic()
        until_s = due_s + seconds
        while (due_s := due_s + intervals_s.expovariate(rate_per_s)) < until_s:
            await asyncio.sleep(due_s - time.monotonic())
            image = images[len(calls) % len(images)]
            calls.append(stub.Infer(inference_pb2.InferRequest(image=image), timeout=60))
        await asyncio.gather(*calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--seconds", type=float, default=17.0)
    chosen = parser.parse_args()
    images = [path.read_bytes() for path in sorted((PARCELS / "test").rglob("*.jpg"))]
    core, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, [core])  # the server inherits it
    flags = ("--threads", "1", "--max-pending-images", "1000", "--metrics-port", "0")
    with server("--backbone", chosen.backbone, *flags, further_lines=1) as served:
        os.sched_setaffinity(0, others or [core])
        load_reference(served.address)
        with Load(served.address, images, CLIENTS) as load:
            measure(served.pid, load, 2.0)  # warms up
            capacity_per_s = measure(served.pid, load, 8.0).images_per_s
        print(f"capacity: {capacity_per_s:.1f} images/s, {1000 / capacity_per_s:.0f} ms each")
        for seed, share in enumerate(SHARES):
            before_s, before = waited(served.metrics_url)
            asyncio.run(send(served.address, images, share * capacity_per_s, chosen.seconds, seed))
            after_s, after = waited(served.metrics_url)
            mean_ms = 1000 * (after_s - before_s) / (after - before)
            print(f"{share:.0%} of it: {after - before:.0f} images waited {mean_ms:.0f} ms on average", flush=True)


if __name__ == "__main__":
    main()
