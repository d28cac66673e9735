"""Checks a server's health four times per second, in its own process, until its input ends; prints the latencies."""

from __future__ import annotations

import json
import select
import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_INTERVAL_S = 0.25


def main() -> None:
    latencies_ms = []
    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
        stub.Check(request, timeout=30)  # connects
        while not select.select([sys.stdin], [], [], _INTERVAL_S)[0]:
            started_s = time.perf_counter()
            stub.Check(request, timeout=30)
            latencies_ms.append(1000 * (time.perf_counter() - started_s))
    print(json.dumps(latencies_ms))


if __name__ == "__main__":
    main()
