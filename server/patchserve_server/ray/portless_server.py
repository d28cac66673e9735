"""A server without a port: the same objects as behind one, for calls that come another way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, cast

import grpc

from patchserve_server.access import Reloader, check_exposure
from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.faces import create_entrance, listening_of
from patchserve_server.bootstrap.listeners import open_listeners
from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.memory import return_memory_periodically
from patchserve_server.bootstrap.process import freeze_heap
from patchserve_server.bootstrap.server import Addresses
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.ray.relayed_call import RelayedCall
from patchserve_server.rpc.server import Services
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.observation import Observation
from patchserve_server.telemetry.logs import open_logs

_EVERYWHERE = "0.0.0.0"  # noqa: S104 - where Ray's proxies listen


class PortlessServer:
    """Serves after `open`, stops after `drain` and `close`.

    Args:
        given: the settings that are not defaults.
        has_several: whether there are to be other servers like this one.
    """

    def __init__(self, given: Mapping[str, Any], *, has_several: bool = False) -> None:
        self._settings = Settings(**given)
        self._has_several = has_several
        self._resources = ExitStack()

    async def open(self) -> None:
        """Starts to serve.

        Raises:
            StartupError: the server cannot start with its settings.
        """
        settings, resources = self._settings, self._resources
        if self._has_several and settings.store_url is None:
            raise StartupError(
                "Several replicas need a store that they share: set store to a URL, such as s3://bucket/prefix, or "
                "num_replicas to 1."
            )
        resources.enter_context(open_logs(settings.log_level, settings.log_calls, settings.log_format))
        credentials = composition.read_credentials(settings)
        check_exposure(_EVERYWHERE, credentials, insecure=settings.insecure)
        observation = Observation()
        open_listeners(settings, observation.events, resources)
        self._entrance = create_entrance(settings, credentials, observation)
        self._services = Services(listening_of(settings, credentials), self._entrance, credentials.authenticator)
        for work in (Reloader(credentials.reloading).run(), return_memory_periodically()):
            resources.callback(asyncio.ensure_future(work).cancel)
        live, nowhere = LiveSettings(settings), Addresses("", "")
        application = await composition.create_application(live, nowhere, observation, resources)
        assert isinstance(application.catalog, Catalog)  # noqa: S101 - there are no fronts
        self._catalog = application.catalog
        freeze_heap()
        self._entrance.readiness.serve(application)

    async def answer(self, method: str, call: RelayedCall) -> None:
        """Answers a call of a method by its full name."""
        handler: Any = self._services.adapter.service(_Details(method))
        await handler.stream_stream(None, call)

    def open_ids(self) -> list[str]:
        """The references that are open, the least recently used first."""
        return [str(reference_id) for reference_id in self._catalog.open_ids()]

    async def drain(self) -> None:
        """Ends streams, and refuses calls that have sent nothing. Accepted work is finished."""
        readiness = self._entrance.readiness
        readiness.begin_drain()
        await readiness.end_streams(self._settings.drain_delay_s)
        self._entrance.reception.drain()

    def close(self) -> None:
        """Gives back everything. A second call does nothing."""
        self._resources.close()


class _Details(grpc.HandlerCallDetails):
    """The name of a method, as gRPC hands it over."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = cast(Any, ())
