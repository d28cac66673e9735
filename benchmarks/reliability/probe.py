"""Asks a server's health four times a second, in a process of its own, until its input ends; prints what it took."""

from __future__ import annotations

import json
import select
import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_EVERY_S = 0.25


def main() -> None:
    took_ms = []
    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
        stub.Check(request, timeout=30)  # connects
        while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
            begun = time.perf_counter()
            stub.Check(request, timeout=30)
            took_ms.append(1000 * (time.perf_counter() - begun))
    print(json.dumps(took_ms))


if __name__ == "__main__":
    main()
