"""The gRPC server: all services on one port, and the drain."""

from __future__ import annotations

from grpc import aio
from grpc_health.v1 import health_pb2_grpc

from patchserve.kserve import open_inference_pb2_grpc
from patchserve.v1 import service_pb2_grpc
from patchserve_server.access import Authenticator
from patchserve_server.contract.methods import KSERVE, SERVICE
from patchserve_server.domain.errors import StartupError
from patchserve_server.rpc.adapter import MethodAdapter
from patchserve_server.rpc.health_servicer import HealthServicer
from patchserve_server.rpc.kserve_servicer import KServeServicer
from patchserve_server.rpc.methods import HEALTH, REFLECTION
from patchserve_server.rpc.reflection import REFLECTION_V1, add_reflection
from patchserve_server.rpc.servicer import PatchCoreServicer
from patchserve_server.rpc.transport import Listening, bind, channel_options
from patchserve_server.serving.entrance import Entrance


class Services:
    """All services, behind the adapter. Whoever relays calls uses them without a port."""

    def __init__(self, listening: Listening, entrance: Entrance, authenticator: Authenticator | None) -> None:
        self.health = HealthServicer(entrance.readiness)
        self.adapter = adapter = MethodAdapter(entrance, authenticator, listening)
        service_pb2_grpc.add_PatchCoreServiceServicer_to_server(PatchCoreServicer(), adapter)  # type: ignore[arg-type]
        kserve = KServeServicer(entrance.readiness)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(kserve, adapter)  # type: ignore[arg-type]
        health_pb2_grpc.add_HealthServicer_to_server(self.health, adapter)
        add_reflection(adapter, (SERVICE, KSERVE, HEALTH, REFLECTION, REFLECTION_V1))


class GrpcServer:
    """Alive after `start`, stopped after `stop`. Without authenticator, no token is needed."""

    def __init__(self, listening: Listening, entrance: Entrance, authenticator: Authenticator | None = None) -> None:
        self._listening = listening
        self._services = Services(listening, entrance, authenticator)
        self._server: aio.Server | None = None

    async def start(self) -> str:
        """Binds the port and answers health checks; returns the address as HOST:PORT or unix:PATH.

        Raises:
            StartupError: the address cannot be bound.
        """
        self._server = aio.server(handlers=[self._services.adapter], options=channel_options(self._listening))
        try:
            address = bind(self._server, self._listening)
        except StartupError:
            # It has no port. gRPC frees only a server that was started and stopped; another one corrupts memory.
            await self._server.start()
            await self._server.stop(None)
            raise
        await self._server.start()
        return address

    def report_readiness(self) -> None:
        """Tells those who watch its health, after a change."""
        self._services.health.report_change()

    async def stop(self, grace_s: float) -> None:
        """Finishes accepted work in the grace time."""
        if self._server is not None:
            await self._server.stop(grace_s)
