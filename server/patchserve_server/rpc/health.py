"""grpc.health.v1: whether the server is alive, and whether it takes calls.

Not the servicer of grpcio-health-checking: a caller of its Watch who does not read holds up every change of a status, and
with it the drain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve_server.domain.errors import UnknownServiceError
from patchserve_server.rpc.calls import Context
from patchserve_server.rpc.methods import SERVICE
from patchserve_server.serving.readiness import Readiness

Response = health_pb2.HealthCheckResponse
ALIVE: Final = ""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """`""` is SERVING as long as the process answers; our service is SERVING while load balancers should send calls."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._changed = asyncio.Event()  # of the current state; the next state has its own

    def report_change(self) -> None:
        """Tells those who watch that the readiness has changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Response:
        if (status := self._statuses().get(request.service)) is None:
            raise UnknownServiceError
        return Response(status=status)

    async def List(self, request: health_pb2.HealthListRequest, context: Context) -> health_pb2.HealthListResponse:
        statuses = {service: Response(status=status) for service, status in self._statuses().items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> AsyncIterator[Response]:
        last = None
        while True:
            changed = self._changed
            status = self._statuses().get(request.service, Response.SERVICE_UNKNOWN)
            if status != last:
                yield Response(status=status)
                last = status
            await changed.wait()

    def _statuses(self) -> dict[str, Response.ServingStatus]:
        is_serving = self._readiness.is_serving
        return {ALIVE: Response.SERVING, SERVICE: Response.SERVING if is_serving else Response.NOT_SERVING}
