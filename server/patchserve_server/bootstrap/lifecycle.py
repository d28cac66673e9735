"""The lifecycle of the server process: start, serve, drain after a signal."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any, TypeVar

from patchserve_server.access import Reloader
from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.faces import create_server
from patchserve_server.bootstrap.memory import return_memory_periodically
from patchserve_server.bootstrap.metrics import open_metrics
from patchserve_server.bootstrap.process import freeze_heap
from patchserve_server.bootstrap.server import Addresses
from patchserve_server.config import Settings
from patchserve_server.domain.words import counted
from patchserve_server.serving.application import Application
from patchserve_server.serving.observation import Observation

T = TypeVar("T")

FORCED_EXIT_CODE = 130

_log = logging.getLogger(__name__)


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Do the work of `bootstrap.serve`: run until SIGTERM or SIGINT, then drain.

    A second one ends the process at once with FORCED_EXIT_CODE. SIGHUP reads the files of credentials again.
    """
    stop = stop_on_signals()
    credentials = composition.read_credentials(settings)
    reloader = Reloader(credentials.reloading)
    reload_on_hangup(reloader)
    observation = Observation()
    server = create_server(settings, credentials, observation)
    addresses = await server.start()
    with ExitStack() as resources:
        for work in (reloader.run(), return_memory_periodically()):
            resources.callback(asyncio.create_task(work).cancel)
        try:
            metrics_url = open_metrics(settings, credentials, observation, resources)
            addresses = dataclasses.replace(addresses, metrics_url=metrics_url)
            starting = composition.create_application(settings, addresses, observation, resources)
            application = await _unless_stopped(starting, stop)
            if application is not None:
                freeze_heap()
                await server.ready(application)
                announce(_ready_line_of(addresses, application))
                await stop
            _log.info("Stopping: no new work after %.1f s, accepted work is finished", settings.drain_delay_s)
        except BaseException:  # the port must not stay open after a failed start
            await server.drain(delay_s=0, grace_s=0)
            raise
        await server.drain(delay_s=settings.drain_delay_s, grace_s=settings.drain_grace_s)
        _log.info("Stopped")


def stop_on_signals() -> asyncio.Future[None]:
    """A future that the first SIGTERM or SIGINT completes. The second ends the process at once."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def on_signal() -> None:
        if stop.done():
            os._exit(FORCED_EXIT_CODE)
        stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def reload_on_hangup(reloader: Reloader) -> None:
    """Makes SIGHUP, which would end the process, reload files. Elsewhere than on Unix there is no such signal."""
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.request)


async def _unless_stopped(starting: Coroutine[Any, Any, T], stop: asyncio.Future[None]) -> T | None:
    """The result of `starting`; None if a stop is requested before."""
    task = asyncio.create_task(starting)
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        return None if stop.done() else await task
    finally:
        task.cancel()  # does nothing if it is done


def ready_line(server_version: str, addresses: Addresses, detector: str, has: str) -> str:
    """What is printed when the server is ready: where it listens, on what it computes, and what it has."""
    http = f" and {addresses.http_url}" if addresses.http_url else ""
    lines = [f"patchserve {server_version} listening on {addresses.grpc}{http} ({detector}), {has}"]
    local = addresses.on_this_machine
    if addresses.http_url:
        lines += [f"For people, in a browser: {local.http_url}", f"For programs, by gRPC: {local.grpc}"]
    if addresses.metrics_url:
        lines.append(f"For Prometheus: {local.metrics_url}")
    return "\n".join(lines)


def _ready_line_of(addresses: Addresses, application: Application) -> str:
    detector = application.detector
    has = counted(application.catalog.usable_count, "reference")
    words = f"{detector.backbone}, {detector.precision}, {detector.device}"
    return ready_line(version("patchserve"), addresses, words, has)
