"""Whether the server takes calls: starting, serving or draining."""

from __future__ import annotations

import asyncio
import enum

from patchserve_server.domain.errors import NotReadyError, PatchserveError
from patchserve_server.serving.application import Application

RETRY_AFTER_START_S = 1.0


class _State(enum.Enum):
    STARTING = enum.auto()
    SERVING = enum.auto()
    DRAINING = enum.auto()


class Readiness:
    """The state of the server, shared by all its services. Holds the application as soon as the server serves."""

    def __init__(self) -> None:
        self._state = _State.STARTING
        self._application: Application | None = None
        self._cause: PatchserveError | None = None  # why there is no application
        self._streams_end = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """Whether load balancers should send calls here."""
        return self._state is _State.SERVING

    @property
    def application(self) -> Application:
        """The application, also during a drain.

        Raises:
            NotReadyError: the server is still starting.
            PatchserveError: the one with which it was suspended.
        """
        if self._application is None:
            if self._cause is not None:
                raise self._cause.copy()
            message = "The server is starting: it loads its backbone and its references. Try again shortly."
            raise NotReadyError(message, RETRY_AFTER_START_S)
        return self._application

    def serve(self, application: Application) -> None:
        """Changes from starting to serving."""
        self._application, self._cause = application, None
        if self._state is _State.STARTING:
            self._state = _State.SERVING

    def suspend(self, error: PatchserveError) -> None:
        """Changes from serving to starting, and ends open streams: what the application needs is lost for now."""
        application, self._application, self._cause = self._application, None, error
        if self._state is _State.SERVING:
            self._state = _State.STARTING
        if application is not None:
            application.streams.end(error)

    def begin_drain(self) -> None:
        """Changes to draining. Calls are still accepted."""
        self._state = _State.DRAINING

    async def end_streams(self, delay_s: float) -> None:
        """Ends open streams after `delay_s`, in which load balancers notice the drain."""
        if self._application is not None:
            await asyncio.sleep(delay_s)
            self._application.streams.drain()
        self._streams_end.set()

    @property
    def streams_have_ended(self) -> bool:
        """Whether no stream may go on."""
        return self._streams_end.is_set()

    async def streams_end(self) -> None:
        """Returns when streams must stop reading and end."""
        await self._streams_end.wait()
