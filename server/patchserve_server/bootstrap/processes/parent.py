"""The parent process: starts the engine and the fronts, starts again what ends, and drains."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from patchserve_server.access import Reloader
from patchserve_server.access.addresses import is_unix_socket, listening_address
from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.lifecycle import ready_line, reload_on_hangup, stop_on_signals
from patchserve_server.bootstrap.live_settings import LiveSettings, SettingsReloader
from patchserve_server.bootstrap.metrics import collect_metrics
from patchserve_server.bootstrap.process import set_log_level
from patchserve_server.bootstrap.processes.assignment import Assignment, Ready
from patchserve_server.bootstrap.processes.devices import devices_of
from patchserve_server.bootstrap.processes.keeper import ChildKeeper
from patchserve_server.bootstrap.processes.ledgers import open_ledgers
from patchserve_server.bootstrap.processes.ports import reserve_port
from patchserve_server.bootstrap.server import Addresses
from patchserve_server.config import Settings
from patchserve_server.config.changes import with_run_time_settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.words import counted
from patchserve_server.fronts.ledger_memory import LedgerMemory
from patchserve_server.fronts.pixels import SharedPixels

_END_S: Final = 5.0  # more than the grace time: then what has not ended is killed

_log = logging.getLogger(__name__)


async def serve_processes(
    live: LiveSettings, fronts: int, announce: Callable[[str], None], read_again: Callable[[], Settings]
) -> None:
    """Run the server as several processes until SIGTERM or SIGINT, then drain.

    Args:
        live: the settings.
        fronts: how many; 0: an engine for those elsewhere.
        announce: gets the ready line.
        read_again: reads the settings, for SIGHUP.

    Raises:
        StartupError: the server cannot start with these settings.
    """
    stop = stop_on_signals()
    with ExitStack() as resources:
        processes = _Processes(live.now, fronts, resources)
        reloader = SettingsReloader(live, read_again)
        resources.callback(asyncio.create_task(reloader.run()).cancel)
        reload_on_hangup(reloader.request, processes.reload)
        live.on_change(set_log_level)
        live.on_change(processes.change)
        try:
            await processes.start(stop, announce)
            if not stop.done():
                await stop
            _log.info("Stopping: no new work after %.1f s, accepted work is finished", live.now.drain_delay_s)
        finally:
            await processes.stop(live.now.drain_delay_s + live.now.drain_grace_s + _END_S)
        _log.info("Stopped")


async def _all_ready(children: Sequence[ChildKeeper]) -> list[Ready]:
    return [await child.ready for child in children]


class _Processes:
    def __init__(self, settings: Settings, fronts: int, resources: ExitStack) -> None:
        port = settings.port
        if not is_unix_socket(settings.host):
            port = reserve_port(settings.host, port, "--port", resources)
        http_port = settings.http_port
        if http_port is not None:
            http_port = reserve_port(settings.host, http_port, "--http-port", resources)
        self._settings = settings.model_copy(update={"port": port, "http_port": http_port})
        folder = Path(tempfile.mkdtemp(prefix="patchserve-", dir=os.environ.get("XDG_RUNTIME_DIR")))  # for us only
        resources.callback(shutil.rmtree, folder, ignore_errors=True)
        self._bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(fronts)]
        ledgers = LedgerMemory.create()
        devices = devices_of(settings) if settings.engine is None else ("",)
        pixels = tuple(SharedPixels.create() for _ in range(fronts * len(devices)))
        for file in (*self._bells, ledgers, *pixels):
            resources.callback(os.close, file)
        self._ledgers = open_ledgers(ledgers, fronts, settings)
        resources.callback(self._ledgers.close)
        own = listening_address(settings.host, port)
        engine = Assignment(
            role="engine",
            number=0,
            fronts=fronts,
            engine=settings.engine or (f"unix:{folder / 'link'}" if fronts else own),
            is_elsewhere=settings.engine is not None or not fronts,
            devices=tuple(f"unix:{folder / f'device-{number}'}" for number in range(1, len(devices))),
            settings=self._settings.model_dump(mode="json"),
            ledgers=ledgers,
            pixels=pixels,
            bells=tuple(self._bells),
        )
        engines = [] if settings.engine else [engine.on_device(*each, len(devices)) for each in enumerate(devices)]
        assignments = [
            *engines,
            *(dataclasses.replace(engine, role="front", number=number) for number in range(fronts)),
        ]
        self._metrics_url = ""
        self._reloader: Reloader | None = None  # of the credentials of the port for metrics
        if settings.metrics_port is not None:
            assignments = [dataclasses.replace(each, metrics=str(folder / each.name)) for each in assignments]
            credentials = composition.read_credentials(settings)
            self._reloader = Reloader(credentials.reloading)
            resources.callback(asyncio.create_task(self._reloader.run()).cancel)
            paths = [Path(each.metrics) for each in assignments]
            self._metrics_url = collect_metrics(
                settings, credentials, paths, resources, lambda: self._settings.metrics_max_references
            )
        self._engine_address = engine.engine
        self._engines = [ChildKeeper(each, self._engine_ended) for each in assignments if each.role == "engine"]
        self._devices = [ChildKeeper(each, lambda _: None) for each in assignments if each.role == "device"]
        self._fronts = [ChildKeeper(each, self._front_ended) for each in assignments if each.role == "front"]
        self._keeping: list[asyncio.Task[None]] = []

    async def start(self, stop: asyncio.Future[None], announce: Callable[[str], None]) -> None:
        """Starts all processes. Returns when they are ready, or when a stop is requested before.

        Raises:
            StartupError: one of them cannot start.
        """
        children = (*self._engines, *self._devices, *self._fronts)
        self._keeping = [asyncio.create_task(child.keep()) for child in children]
        ready = asyncio.create_task(_all_ready(children))
        try:
            waited: list[asyncio.Future[Any]] = [ready, stop, *self._keeping]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in self._keeping:
                if task.done():
                    task.result()  # what it could not start with
            if ready.done():
                announce(self._ready_line(*ready.result()))
        finally:
            ready.cancel()

    def _ready_line(self, *ready: Ready) -> str:
        engine = next(each for each in ready if each.detector)
        fronts = counted(len(self._fronts), "front") if self._fronts else "an engine for fronts elsewhere"
        found = [each.addresses for each in ready if each.addresses is not None]
        addresses = found[0] if found else Addresses(self._engine_address, "")
        addresses = dataclasses.replace(addresses, metrics_url=self._metrics_url)
        if self._devices:
            fronts = f"{counted(1 + len(self._devices), 'device')}, {fronts}"
        words = f"{counted(engine.references, 'reference')}, {fronts}"
        return ready_line(version("patchserve"), addresses, engine.detector, words)

    def reload(self) -> None:
        """Lets all children read their files again."""
        for child in (*self._engines, *self._devices, *self._fronts):
            child.reload()
        if self._reloader is not None:
            self._reloader.request()

    def change(self, settings: Settings) -> None:
        """Gives every child the settings that may change at run time."""
        self._settings = with_run_time_settings(self._settings, settings)
        for child in (*self._engines, *self._devices, *self._fronts):
            child.change(self._settings)

    async def stop(self, limit_s: float) -> None:
        """Drains the fronts, then ends the engine."""
        await asyncio.gather(*(front.stop(limit_s) for front in self._fronts))
        await asyncio.gather(*(child.stop(limit_s) for child in self._devices))
        await asyncio.gather(*(child.stop(limit_s) for child in self._engines))
        for task in self._keeping:
            task.cancel()
        for task in self._keeping:
            with suppress(asyncio.CancelledError, StartupError):
                await task

    def _front_ended(self, number: int) -> None:
        """Gives back what it held, and lets the others look at what waits."""
        for ledger in range(self._ledgers.ledgers):
            self._ledgers.clear(ledger, number)
        for other, bell in enumerate(self._bells):
            if other != number:
                os.eventfd_write(bell, 1)

    def _engine_ended(self, _: int) -> None:
        if self._settings.store is None:
            _log.error("References were kept in memory only, and are lost; --store keeps them")
