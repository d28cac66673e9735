"""The socket: service, health and reflection on one port, and the drain."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from typing import Final

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from patchserve.kserve import open_inference_pb2_grpc
from patchserve.v1 import service_pb2_grpc
from patchserve_server.access import Authenticator
from patchserve_server.rpc.admission import ONE, PROBES, AdmissionInterceptor, client_of
from patchserve_server.rpc.authorization import KSERVE, SERVICE, AuthorizationInterceptor
from patchserve_server.rpc.interceptors import Context, Place, StatusInterceptor
from patchserve_server.rpc.kserve_servicer import KServeServicer
from patchserve_server.rpc.servicer import PatchCoreServicer
from patchserve_server.rpc.transport import Listening, bind, channel_options
from patchserve_server.serving.application import Application

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING

_log = logging.getLogger(__name__)


class GrpcServer:
    """Alive from `start`, serving from `ready`, gone after `drain`. Without an authenticator, calls need no token."""

    def __init__(self, listening: Listening, version: str, authenticator: Authenticator | None = None) -> None:
        self._listening = listening
        self._authenticator = authenticator
        self._servicer = PatchCoreServicer(version)
        self._kserve = KServeServicer(self._servicer, version)
        self._health = health.aio.HealthServicer()
        self._application: Application | None = None
        self._server: aio.Server | None = None

    async def start(self) -> str:
        """Binds and answers health checks; returns the bound address as HOST:PORT.

        Raises:
            StartupError: the address cannot be bound, or must not be without TLS.
        """
        status = StatusInterceptor(
            SERVICE,
            KSERVE,
            reflection.SERVICE_NAME,
            place=self._place_of_call,
            write_timeout_s=self._listening.write_timeout_s,
        )
        interceptors: list[aio.ServerInterceptor] = [status]
        if self._authenticator is not None:
            interceptors.append(AuthorizationInterceptor(self._authenticator))
        interceptors.append(AdmissionInterceptor(SERVICE, KSERVE, application=lambda: self._servicer.application))
        self._server = aio.server(interceptors=interceptors, options=channel_options(self._listening))
        service_pb2_grpc.add_PatchCoreServiceServicer_to_server(self._servicer, self._server)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._kserve, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        told = (SERVICE, KSERVE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(told, self._server)
        await self._health.set(SERVICE, _NOT_SERVING)
        address = bind(self._server, self._listening, authenticated=self._authenticator is not None)
        await self._server.start()
        return address

    async def ready(self, application: Application) -> None:
        """Begins to serve."""
        self._application = application
        self._servicer.ready(application)
        await self._health.set(SERVICE, _SERVING)

    def _place_of_call(self, method: str, context: Context) -> Place:
        """Every call of the services takes one; reflection and health checks are never refused."""
        if self._application is None or method in PROBES or not method.startswith((f"/{SERVICE}/", f"/{KSERVE}/")):
            return nullcontext()
        return self._application.calls.take(client_of(context), ONE)

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Tells the health checkers, waits until they know, then finishes what was accepted within the grace time."""
        await self._health.set(SERVICE, _NOT_SERVING)
        self._kserve.stop()
        if self._application is not None:
            await asyncio.sleep(delay_s)
            self._application.sessions.drain()
            self._kserve.drain()
        if self._server is not None:
            await self._server.stop(grace_s)
