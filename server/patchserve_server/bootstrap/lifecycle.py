"""The lifecycle of the server process: start, serve, drain after a signal."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any, TypeVar

from patchserve_server.access import Reloader
from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.faces import create_server
from patchserve_server.bootstrap.listeners import open_listeners
from patchserve_server.bootstrap.live_settings import LiveSettings, SettingsReloader
from patchserve_server.bootstrap.memory import return_memory_periodically
from patchserve_server.bootstrap.metrics import open_metrics
from patchserve_server.bootstrap.process import freeze_heap, set_log_level
from patchserve_server.bootstrap.run_time import reconfigured
from patchserve_server.bootstrap.server import Addresses
from patchserve_server.config import Settings
from patchserve_server.domain.words import counted
from patchserve_server.serving.application import Application
from patchserve_server.serving.observation import Observation
from patchserve_server.system.signals import STOP_SIGNALS, handle, handle_reload

T = TypeVar("T")

FORCED_EXIT_CODE = 130

_log = logging.getLogger(__name__)


async def serve(live: LiveSettings, announce: Callable[[str], None], read_again: Callable[[], Settings]) -> None:
    """Do the work of `bootstrap.serve`: run until SIGTERM or SIGINT, then drain.

    A second one ends the process at once with FORCED_EXIT_CODE. SIGHUP reads the settings and the files of credentials
    again.
    """
    stop = stop_on_signals()
    settings = live.now
    credentials = composition.read_credentials(settings)
    reloader = Reloader(credentials.reloading)
    settings_reloader = SettingsReloader(live, read_again)
    reload_on_hangup(settings_reloader.request, reloader.request)
    live.on_change(set_log_level)
    observation = Observation()
    with ExitStack() as resources:
        open_listeners(settings, observation.events, resources)
        server = create_server(settings, credentials, observation)
        # Before any call can begin: whoever counts hears of the begin and of the end, or of neither.
        metrics_url = open_metrics(live, credentials, observation, resources)
        addresses = dataclasses.replace(await server.start(), metrics_url=metrics_url)
        for work in (settings_reloader.run(), reloader.run(), return_memory_periodically()):
            resources.callback(asyncio.create_task(work).cancel)
        try:
            starting = composition.create_application(live, addresses, observation, resources)
            application = await _unless_stopped(starting, stop)
            if application is not None:
                freeze_heap()
                await server.ready(reconfigured(application, live.now))
                live.on_change(lambda settings: server.replace(reconfigured(application, settings)))
                announce(_ready_line_of(addresses, application))
                await stop
            _log.info("Stopping: no new work after %.1f s, accepted work is finished", live.now.drain_delay_s)
        except BaseException:  # the port must not stay open after a failed start
            await server.drain(delay_s=0, grace_s=0)
            raise
        await server.drain(delay_s=live.now.drain_delay_s, grace_s=live.now.drain_grace_s)
        _log.info("Stopped")


def stop_on_signals() -> asyncio.Future[None]:
    """A future that the first SIGTERM or SIGINT completes. The second ends the process at once."""
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_signal() -> None:
        if stop.done():
            os._exit(FORCED_EXIT_CODE)
        stop.set_result(None)

    for number in STOP_SIGNALS:
        handle(number, on_signal)
    return stop


def reload_on_hangup(*requests: Callable[[], None]) -> None:
    """Makes SIGHUP, which would end the process, request these. Elsewhere than on Unix there is no such signal."""

    def on_signal() -> None:
        for request in requests:
            request()

    handle_reload(on_signal)


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
