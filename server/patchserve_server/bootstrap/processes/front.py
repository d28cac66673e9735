"""A front process: the faces of the server, and what they do to images."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from contextlib import ExitStack
from importlib.metadata import version
from typing import Final

from patchserve_server.access import Reloader
from patchserve_server.access.link_tls import LinkTls, open_front_tls
from patchserve_server.access.reloading import Reloading
from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.faces import create_server
from patchserve_server.bootstrap.limits import Admissions, open_admissions, server_limits
from patchserve_server.bootstrap.listeners import open_listeners
from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.memory import return_memory_periodically
from patchserve_server.bootstrap.metrics import share_metrics
from patchserve_server.bootstrap.pools import Pools, open_pools
from patchserve_server.bootstrap.process import freeze_heap
from patchserve_server.bootstrap.processes.assignment import Assignment, Ready
from patchserve_server.bootstrap.processes.child import Commands, report
from patchserve_server.bootstrap.processes.devices import devices_of
from patchserve_server.bootstrap.processes.ledgers import open_ledgers
from patchserve_server.bootstrap.run_time import change_admissions, reconfigured
from patchserve_server.bootstrap.server import Addresses, Server
from patchserve_server.config import Settings
from patchserve_server.config.changes import with_run_time_settings
from patchserve_server.domain.callers import TlsIdentity
from patchserve_server.domain.errors import EngineLostError, PatchserveError
from patchserve_server.domain.events import Events
from patchserve_server.domain.readings import Reading
from patchserve_server.fronts.devices import Devices
from patchserve_server.fronts.endpoints import connect
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.link import MISSES, WATCH_S, Link
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.fronts.remote_engine import RemoteEngine
from patchserve_server.fronts.shared_ledger import SharedLedger
from patchserve_server.serving.application import Application
from patchserve_server.serving.fairness import FairSemaphore
from patchserve_server.serving.observation import Observation
from patchserve_server.serving.peers import Peers
from patchserve_server.serving.shared_statistics import SharedStatistics
from patchserve_server.serving.statistics import ServerStatistics
from patchserve_server.serving.wall import SharedWall, Wall, WallLimits

_RECONNECT_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0

_log = logging.getLogger(__name__)


async def run_front(assignment: Assignment) -> None:
    """Serves until the parent stops it, then drains.

    Raises:
        StartupError: it cannot start with these settings.
    """
    live = LiveSettings(assignment.read_settings())
    settings = live.now
    credentials = composition.read_credentials(settings)
    engine_identity = _engine_identity(assignment, settings)
    reloader = Reloader((*credentials.reloading, *([] if engine_identity is None else [engine_identity])))
    commands = Commands(live, reloader.request)
    observation, peers = Observation(), Peers()
    with ExitStack() as resources:
        open_listeners(settings, observation.events, resources, assignment.name)
        server = create_server(settings, credentials, observation, peers, shares_port=True)
        share_metrics(assignment.metrics, assignment.name, live, observation, resources)
        for work in (commands.listen(), reloader.run(), return_memory_periodically()):
            resources.callback(asyncio.create_task(work).cancel)
        addresses = await server.start()
        tls = None if engine_identity is None else LinkTls.of_front(engine_identity)
        front = _Front(assignment, settings, addresses, server, observation, tls=tls, peers=peers, resources=resources)
        live.on_change(front.change)
        connected = asyncio.create_task(front.keep_connected())
        resources.callback(connected.cancel)
        for number in range(1, 1 + len(assignment.devices)):
            resources.callback(asyncio.create_task(front.keep_device(number)).cancel)
        try:
            await asyncio.wait((connected, commands.stop), return_when=asyncio.FIRST_COMPLETED)
            if connected.done():
                connected.result()  # a bug: it never returns
        except BaseException:  # the port must not stay open after a failed start
            await server.drain(delay_s=0, grace_s=0)
            raise
        await server.drain(delay_s=live.now.drain_delay_s, grace_s=live.now.drain_grace_s)


class _Front:
    """What a front has beside its server, and keeps when the engine is started again."""

    def __init__(
        self,
        assignment: Assignment,
        settings: Settings,
        addresses: Addresses,
        server: Server,
        observation: Observation,
        *,
        tls: LinkTls | None,
        peers: Peers,
        resources: ExitStack,
    ) -> None:
        threads = max(1, settings.threads // assignment.fronts)
        self._assignment = assignment
        self._settings = settings.model_copy(update={"threads": threads})
        self._addresses = addresses
        self._server = server
        self._tls = tls
        own = [] if assignment.is_elsewhere else assignment.pixels[assignment.number :: assignment.fronts]
        self._pixels = [SharedPixels(file) for file in own]  # of the engine, and of each further device
        self._devices = Devices()
        self._last_problem = ""
        self._pools: Pools = open_pools(self._settings, resources)
        wall, statistics = Wall(self._pools.images, WallLimits().shared_by(assignment.fronts)), ServerStatistics()
        self._wall = SharedWall(wall, peers, self._pools.images)
        self._statistics = SharedStatistics(statistics, peers)
        self._peers = peers
        self._events = observation.events
        if settings.http_port is not None:
            self._events.add(wall)
        self._events.add(statistics)
        self._admissions = _share_admissions(assignment, self._settings, self._events, resources)
        self._application: Application | None = None  # None: there is no engine
        self._is_ready = False
        self._turns: FairSemaphore | None = None  # of the engine that is connected
        observation.readings.add(self._read)

    def _read(self) -> list[Reading]:
        return [] if self._turns is None else [Reading("queue_images", self._turns.waiting)]

    def change(self, settings: Settings) -> None:
        """Has other settings of those that may change at run time."""
        self._settings = with_run_time_settings(self._settings, settings)
        change_admissions(self._admissions, self._settings)
        if self._application is not None:
            self._application = reconfigured(self._application, self._settings)
            self._server.replace(self._application)

    async def keep_connected(self) -> None:
        """Connects to the engine, and again when it is lost. Meanwhile the server is not ready. Never returns."""
        pause_s = _RECONNECT_S
        longest_s = _LONGEST_PAUSE_S if self._assignment.is_elsewhere else _RECONNECT_S
        while True:
            engine = RemoteEngine(self._pixels[0] if self._pixels else None, self._events, self._peers, self._devices)
            try:
                if await self._connect(engine):
                    pause_s, self._last_problem = _RECONNECT_S, ""
                    await engine.lost.wait()
                    _log.warning("The engine is lost; until it is back, calls are refused")
                    self._application = None
                    self._server.suspend(EngineLostError())
            finally:
                engine.close()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _connect(self, engine: RemoteEngine) -> bool:
        front = self._assignment.number if self._pixels else None
        address = self._assignment.engine
        try:
            detector = await engine.connect(address, version=version("patchserve"), front=front, tls=self._tls)
        except OSError as error:
            self._report(f"cannot be reached ({error.strerror or error or type(error).__name__})")
            return False
        except EngineLostError:
            self._report("ends the link at once. Does its --tls-client-ca sign --engine-tls-cert?")
            return False
        except PatchserveError as error:
            self._report(f"cannot be used: {error.message}")
            self._server.suspend(error)
            return False
        if self._assignment.devices:
            detector = dataclasses.replace(
                detector, device=", ".join((detector.device, *devices_of(self._settings)[1:]))
            )
        most = self._devices.spread = engine.limits["max_batch_size"]
        limits = dataclasses.replace(
            server_limits(self._settings, self._admissions, max_batch_size=most), **engine.limits
        )
        for_all = dataclasses.replace(limits, max_batch_size=most * (1 + len(self._assignment.devices)))
        self._turns = composition.create_turns(self._settings, for_all, decode=detector.decode)
        inspector = composition.create_inspector(
            self._settings,
            engine.scoring,
            engine.drawing if detector.decode == "device" else None,
            self._pools,
            limits,
            turns=self._turns,
            drifts=engine.drift,
            events=self._events,
        )
        self._application = composition.assemble(
            self._settings,
            self._addresses,
            limits,
            self._admissions,
            detector=detector,
            catalog=engine.references,
            builder=engine.loads,
            inspector=inspector,
            reference_images=engine.reference_images,
            wall=self._wall,
            statistics=self._statistics,
            drift=engine.drift,
            transfer=engine.transfer,
            events=self._events,
        )
        await self._server.ready(self._application)
        if not self._is_ready:
            self._is_ready = True
            freeze_heap()
            words = f"{detector.backbone}, {detector.precision}, {detector.device}"
            report(Ready(words, engine.references.usable_count, self._addresses))
        return True

    async def keep_device(self, number: int) -> None:
        """Connects to the process of a further device, and again when it has ended. Never returns."""
        while True:
            lost = asyncio.Event()
            link = Link(_Silent(), lost.set)
            hello = {"do": "hello", "version": version("patchserve"), "pixels": self._assignment.number}
            try:
                async with asyncio.timeout(WATCH_S * MISSES):
                    await connect(link.connection, self._assignment.devices[number - 1])
                    await link.ask(hello)
                link.watch()
                self._devices.add(link, self._pixels[number])
                await lost.wait()
                _log.warning("Device %d is lost; the others go on", number)
            except (OSError, PatchserveError):
                _log.debug("Device %d is not there yet", number)
            finally:
                link.close()
            await asyncio.sleep(_RECONNECT_S)

    def _report(self, problem: str) -> None:
        """Logs why there is no engine, once. That of this machine is only being started."""
        if problem != self._last_problem and self._assignment.is_elsewhere:
            _log.warning("The engine at %s %s; trying again until it can", self._assignment.engine, problem)
        self._last_problem = problem


class _Silent:
    """What a further device may ask a front for: nothing."""

    async def answer(self, _request: Head, _body: bytes, /) -> tuple[Head, Body]:
        return {}, b""

    def told(self, message: Head, body: bytes) -> None: ...


def _engine_identity(assignment: Assignment, settings: Settings) -> Reloading[TlsIdentity] | None:
    if not assignment.is_elsewhere:
        return None
    return open_front_tls(
        assignment.engine,
        settings.engine_tls_ca,
        settings.engine_tls_cert,
        settings.engine_tls_key,
        insecure=settings.insecure,
    )


def _share_admissions(assignment: Assignment, settings: Settings, events: Events, resources: ExitStack) -> Admissions:
    memory = open_ledgers(assignment.ledgers, assignment.fronts, settings)
    resources.callback(memory.close)
    bells = assignment.bells

    def ring(front: int) -> None:
        os.eventfd_write(bells[front], 1)

    admissions = open_admissions(settings, events, lambda number: SharedLedger(memory, number, assignment.number, ring))
    own = bells[assignment.number]

    def rung() -> None:
        os.eventfd_read(own)
        admissions.grant_pending()

    loop = asyncio.get_running_loop()
    loop.add_reader(own, rung)
    resources.callback(loop.remove_reader, own)
    return admissions
