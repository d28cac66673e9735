"""Asks whether a server of ours answers at an address. For the doctor: it blocks."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve_server.contract.methods import SERVICE

TIMEOUT_S = 2.0


def answers(address: str) -> str:
    """`SERVING` or `NOT_SERVING`, if a patchserve answers there in plain text; empty: nobody or another program."""
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError:
            return ""
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
