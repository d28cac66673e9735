"""The server: its faces, gRPC and HTTP, on one application, with one drain."""

from __future__ import annotations

import asyncio
import re
from dataclasses import astuple, dataclass
from typing import Final, Protocol

from patchserve_server.domain.errors import PatchserveError
from patchserve_server.rpc.server import GrpcServer
from patchserve_server.serving.application import Application
from patchserve_server.serving.entrance import Entrance

_EVERY_ADDRESS: Final = re.compile(r"(^|//)(0\.0\.0\.0|\[::\])(?=:)")


class HttpFace(Protocol):
    """The HTTP face, as far as the server needs it. Its class is imported only if it is used."""

    async def start(self) -> str:
        """Binds the port; returns the address as a URL.

        Raises:
            StartupError: the address cannot be bound.
        """

    async def stop(self, grace_s: float) -> None:
        """Finishes accepted work in the grace time, then closes all connections."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens."""

    grpc: str  # HOST:PORT or unix:PATH
    http_url: str  # empty: no HTTP face
    metrics_url: str = ""  # empty: no metrics

    @property
    def on_this_machine(self) -> Addresses:
        """The same for somebody at this machine: not every program can connect to 0.0.0.0."""
        return Addresses(*(_EVERY_ADDRESS.sub(r"\1localhost", address) for address in astuple(self)))


class Server:
    """Alive after `start`, serving after `ready`, stopped after `drain`."""

    def __init__(self, entrance: Entrance, grpc: GrpcServer, http: HttpFace | None) -> None:
        self._entrance = entrance
        self._grpc = grpc
        self._http = http

    async def start(self) -> Addresses:
        """Binds all ports. Health checks are answered from now on.

        Raises:
            StartupError: an address cannot be bound. None stays bound.
        """
        address = await self._grpc.start()
        try:
            return Addresses(address, "" if self._http is None else await self._http.start())
        except BaseException:
            await self._grpc.stop(0)
            raise

    async def ready(self, application: Application) -> None:
        """Starts to serve calls."""
        self._entrance.readiness.serve(application)
        self._grpc.report_readiness()

    def replace(self, application: Application) -> None:
        """Serves later calls with this application, which has other limits. Calls in progress keep theirs."""
        self._entrance.readiness.serve(application)

    def suspend(self, error: PatchserveError) -> None:
        """Serves no calls until `ready` is called again. Open streams end with this error."""
        self._entrance.readiness.suspend(error)
        self._grpc.report_readiness()

    async def drain(self, *, delay_s: float, grace_s: float) -> None:
        """Reports NOT_SERVING, gives load balancers time to notice, then finishes accepted work in the grace time."""
        self._entrance.readiness.begin_drain()
        self._grpc.report_readiness()
        await self._entrance.readiness.end_streams(delay_s)
        self._grpc.report_readiness()  # ends those who watch: the server would wait for them
        self._entrance.reception.drain()
        async with asyncio.TaskGroup() as faces:
            faces.create_task(self._grpc.stop(grace_s))
            if self._http is not None:
                faces.create_task(self._http.stop(grace_s))
