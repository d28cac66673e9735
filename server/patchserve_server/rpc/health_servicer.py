"""grpc.health.v1: whether the server is alive, and whether it takes calls.

The servicer of grpcio-health-checking does not fit: it writes responses and aborts calls by itself, past the adapter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

from patchserve_server.contract.methods import SERVICE
from patchserve_server.domain.errors import DrainingError, UnknownServiceError
from patchserve_server.rpc.calls import Context
from patchserve_server.serving.readiness import Readiness

ALIVE: Final = ""


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # it has no types
    """`""` is SERVING as long as the process answers; our service is SERVING while load balancers should send calls."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._changed = asyncio.Event()  # of the current state; the next state has its own

    def report_change(self) -> None:
        """Tells those who watch that the readiness has changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if (status := self._statuses().get(request.service)) is None:
            raise UnknownServiceError
        return HealthCheckResponse(status=status)

    async def List(self, request: HealthListRequest, context: Context) -> HealthListResponse:
        statuses = {service: HealthCheckResponse(status=status) for service, status in self._statuses().items()}
        return HealthListResponse(statuses=statuses)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        last = None
        while True:
            changed = self._changed
            status = self._statuses().get(request.service, HealthCheckResponse.SERVICE_UNKNOWN)
            if status != last:
                yield HealthCheckResponse(status=status)
                last = status
            await changed.wait()
            if self._readiness.streams_have_ended:
                raise DrainingError

    def _statuses(self) -> dict[str, int]:
        serving, not_serving = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
        return {ALIVE: serving, SERVICE: serving if self._readiness.is_serving else not_serving}
