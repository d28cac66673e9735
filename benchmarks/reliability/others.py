"""Calls of others during an attack, in a process of its own: prints how long each took, until its input ends."""

from __future__ import annotations

import json
import select
import sys
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.v1 import inference_pb2, service_pb2_grpc

_INTERVAL_S = 0.05


def main() -> None:
    """Arguments: the address, and the path of an image."""
    request = inference_pb2.InferRequest(image=Path(sys.argv[2]).read_bytes())
    check = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
    took_ms: dict[str, list[float]] = {"infer": [], "health": []}
    failed: list[str] = []
    with grpc.insecure_channel(sys.argv[1]) as channel:
        calls = {
            "infer": lambda: service_pb2_grpc.PatchCoreServiceStub(channel).Infer(request, timeout=60),
            "health": lambda: health_pb2_grpc.HealthStub(channel).Check(check, timeout=60),
        }
        calls["infer"]()
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], _INTERVAL_S)[0]:
            for name, call in calls.items():
                started_s = time.perf_counter()
                try:
                    call()
                except grpc.RpcError as error:
                    failed.append(f"{name}: {error.code().name}")  # type: ignore[attr-defined]
                took_ms[name].append(1000 * (time.perf_counter() - started_s))
    print(json.dumps({"took_ms": took_ms, "failed": failed}))


if __name__ == "__main__":
    main()
