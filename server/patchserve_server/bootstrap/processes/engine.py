"""The engine process: detector, references, batches."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, suppress
from importlib.metadata import version
from typing import Final

from patchserve_server.access import Reloader
from patchserve_server.access.addresses import is_unix_socket
from patchserve_server.access.link_tls import LinkTls, check_engine_exposure
from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.limits import open_admissions
from patchserve_server.bootstrap.listeners import open_listeners
from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.memory import return_memory_periodically
from patchserve_server.bootstrap.metrics import share_metrics
from patchserve_server.bootstrap.pools import open_pools
from patchserve_server.bootstrap.process import freeze_heap
from patchserve_server.bootstrap.processes.assignment import Assignment, Ready
from patchserve_server.bootstrap.processes.child import Commands, report
from patchserve_server.fronts.connected_fronts import ConnectedFronts
from patchserve_server.fronts.endpoints import listen
from patchserve_server.fronts.engine_session import Engine, EngineSession
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.serving.drift import DriftWatch
from patchserve_server.serving.observation import Observation
from patchserve_server.serving.reference_images import ReferenceImages

_LIMITS: Final = ("max_bank_bytes", "max_batch_size")

_log = logging.getLogger(__name__)


async def run_engine(assignment: Assignment) -> None:
    """Serves the fronts until the parent stops it and they have gone.

    Raises:
        StartupError: the backbone, the store or the preloaded images cannot be used.
    """
    live = LiveSettings(assignment.read_settings())
    settings, tls, reloader = live.now, None, Reloader(())
    if assignment.is_elsewhere:
        credentials = composition.read_credentials(settings)
        check_engine_exposure(settings.host, credentials, insecure=settings.insecure)
        tls = None if credentials.identity is None else LinkTls.of_engine(credentials.identity)
        reloader = Reloader(credentials.reloading)
    commands = Commands(live, reloader.request)
    with ExitStack() as resources:
        for work in (commands.listen(), reloader.run(), return_memory_periodically()):
            resources.callback(asyncio.create_task(work).cancel)
        pools = open_pools(settings, resources)
        observation, fronts = Observation(), ConnectedFronts()
        open_listeners(settings, observation.events, resources, assignment.name)
        share_metrics(assignment.metrics, assignment.name, live, observation, resources)
        admissions = open_admissions(settings, observation.events)  # the fronts admit
        local = await composition.open_engine(
            settings, pools, admissions, resources, observation=observation, fronts=fronts
        )
        commands.busy_s = lambda: local.longest_s
        drift = DriftWatch(local.catalog.find, pools.images, fronts.tell_drift)
        observation.readings.add(drift.readings)
        engine = Engine(
            version=version("patchserve"),
            detector=local.detector,
            catalog=local.catalog,
            batcher=local.batcher,
            drawing=local.drawing,
            builder=local.builder,
            reference_images=ReferenceImages(
                local.catalog, pools.images, composition.create_turns(settings, local.limits)
            ),
            transfer=local.transfer,
            drift=drift,
            fronts=fronts,
            limits={name: getattr(local.limits, name) for name in _LIMITS},
            pixels=[SharedPixels(file) for file in assignment.pixels[: assignment.fronts]],
        )
        freeze_heap()
        shares_port = not is_unix_socket(assignment.engine)
        server = await listen(
            lambda: EngineSession(engine).link.connection, assignment.engine, tls, shares_port=shares_port
        )
        resources.callback(server.close)
        detector = local.detector
        report(Ready(f"{detector.backbone}, {detector.precision}, {detector.device}", local.catalog.usable_count))
        await commands.stop
        server.close()
        with suppress(TimeoutError):  # after the end of the parent, the fronts drain by themselves
            async with asyncio.timeout(live.now.drain_delay_s + live.now.drain_grace_s):
                await fronts.all_gone()
        _log.info("Stopped")
