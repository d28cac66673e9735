"""A device process: one more detector, whose banks come from the engine that keeps the references."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import Final

from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.limits import MIB, batch_size
from patchserve_server.bootstrap.listeners import open_listeners
from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.memory import return_memory_periodically
from patchserve_server.bootstrap.metrics import share_metrics
from patchserve_server.bootstrap.pools import INFERENCE_WORKERS, open_pools
from patchserve_server.bootstrap.process import freeze_heap
from patchserve_server.bootstrap.processes.assignment import Assignment, Ready
from patchserve_server.bootstrap.processes.child import Commands, report
from patchserve_server.domain.errors import PatchserveError, StartupError
from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.domain.readings import Reading
from patchserve_server.fronts.device_references import DeviceReferences
from patchserve_server.fronts.drawings import Drawings
from patchserve_server.fronts.endpoints import listen
from patchserve_server.fronts.flows import SessionFlows
from patchserve_server.fronts.pinned_scores import PinnedScores
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.fronts.remote_engine import RemoteEngine
from patchserve_server.fronts.session import Session
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.observation import Observation
from patchserve_server.serving.peers import Peers
from patchserve_server.store import ExportedFiles

_RECONNECT_S: Final = 0.1

_log = logging.getLogger(__name__)


async def run_device(assignment: Assignment) -> None:
    """Scores for the fronts until the parent stops it.

    Raises:
        StartupError: the backbone cannot be used, or computes otherwise than that of the engine.
    """
    live = LiveSettings(assignment.read_settings())
    settings, commands, observation = live.now, Commands(live), Observation()
    with ExitStack() as resources:
        for work in (commands.listen(), return_memory_periodically()):
            resources.callback(asyncio.create_task(work).cancel)
        pools = open_pools(settings, resources)
        open_listeners(settings, observation.events, resources, assignment.name)
        share_metrics(assignment.metrics, assignment.name, live, observation, resources)
        loop = asyncio.get_running_loop()
        detector = await loop.run_in_executor(pools.inference, composition.open_detector, settings)
        references = DeviceReferences(
            detector, ExportedFiles(None), pools.opening, max_bytes=settings.max_bank_mib * MIB
        )
        observation.events.add(references)
        batcher = Batcher(
            detector,
            pools.inference,
            workers=INFERENCE_WORKERS,
            max_batch_size=batch_size(settings, detector.info.device),
            max_queue_delay_s=settings.max_queue_delay_ms / 1000,
            events=observation.events,
        )
        drawing = composition.create_drawing(detector, pools, batch_size(settings, detector.info.device))
        commands.busy_s = lambda: max(batcher.longest_s, 0.0 if drawing is None else drawing.longest_s)
        observation.readings.add(
            lambda: [Reading("queue_images", batcher.waiting + (0 if drawing is None else drawing.waiting))]
        )
        connected = asyncio.Event()
        connecting = asyncio.create_task(
            _keep_connected(assignment, references, detector.info, observation, connected.set)
        )
        resources.callback(connecting.cancel)
        fronts = assignment.fronts
        pixels = [SharedPixels(file) for file in assignment.pixels[assignment.number * fronts :][:fronts]]
        sessions = itertools.count()

        def session() -> asyncio.Protocol:
            flows = SessionFlows(next(sessions))
            scores = PinnedScores(references.use, batcher, flows)
            drawings = None if drawing is None else Drawings(drawing, flows)
            return Session(version("patchserve"), scores, drawings, pixels).link.connection

        freeze_heap()
        server = await listen(session, assignment.devices[assignment.number - 1])
        resources.callback(server.close)
        is_connected = asyncio.create_task(connected.wait())
        await asyncio.wait((is_connected, commands.stop, connecting), return_when=asyncio.FIRST_COMPLETED)
        if is_connected.done():
            report(Ready())
        await asyncio.wait((commands.stop, connecting), return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            connecting.result()  # it cannot start, or a bug: it never returns
        _log.info("Stopped")


async def _keep_connected(
    assignment: Assignment,
    references: DeviceReferences,
    own: DetectorInfo,
    observation: Observation,
    connected: Callable[[], None],
) -> None:
    while True:
        engine = RemoteEngine(None, observation.events, Peers())
        try:
            of_engine = await engine.connect(assignment.engine, version=version("patchserve"), front=None)
            _check(own, of_engine)
            references.connected(engine)
            connected()
            await engine.lost.wait()
        except StartupError:
            raise
        except (OSError, PatchserveError):
            _log.debug("The engine is not there yet")
        finally:
            references.connected(None)
            engine.close()
        await asyncio.sleep(_RECONNECT_S)


def _check(own: DetectorInfo, of_engine: DetectorInfo) -> None:
    """Check that it makes no difference which device scores.

    Raises:
        StartupError: it would.
    """
    if own.precision != of_engine.precision:
        precisions = f"{own.device} computes in {own.precision}, and {of_engine.device} in {of_engine.precision}"
        raise StartupError(f"{precisions}: set --precision.")
    if own.decode != of_engine.decode:
        where = f"{own.device} decodes on the {own.decode}, and {of_engine.device} on the {of_engine.decode}"
        raise StartupError(f"{where}: set --decode cpu.")
