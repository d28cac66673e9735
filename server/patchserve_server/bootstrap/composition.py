"""The composition root: every object of the server is created and connected here."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from patchserve_server.access import Credentials, open_credentials
from patchserve_server.bootstrap.catalog import open_catalog
from patchserve_server.bootstrap.folders import measurements_folder, networks_folder, own_folder
from patchserve_server.bootstrap.limits import (
    Admissions,
    batch_size,
    images_in_progress,
    open_admissions,
    server_limits,
)
from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.metrics import build_readings
from patchserve_server.bootstrap.pools import DRAWING_WORKERS, INFERENCE_WORKERS, Pools, open_pools
from patchserve_server.bootstrap.run_time import folder_limits
from patchserve_server.bootstrap.server import Addresses
from patchserve_server.config import Settings, words_of
from patchserve_server.domain.events import Events
from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.ports import Detector, DetectorInfo
from patchserve_server.domain.readings import Reading
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.fronts.connected_fronts import ConnectedFronts
from patchserve_server.imaging import ImageLimits
from patchserve_server.serving.application import Application, ServerLimits
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.drawing import BatchedDrawing
from patchserve_server.serving.drift import DriftWatch
from patchserve_server.serving.engine_ports import (
    Drawing,
    Drifts,
    Loads,
    ReferenceImageReader,
    References,
    Scoring,
    Transfer,
)
from patchserve_server.serving.engine_readings import engine_readings
from patchserve_server.serving.fairness import FairSemaphore
from patchserve_server.serving.inspector import Inspector
from patchserve_server.serving.local_inspector import LocalInspector
from patchserve_server.serving.local_scoring import LocalScoring
from patchserve_server.serving.observation import Observation
from patchserve_server.serving.output_folder import OutputFolder
from patchserve_server.serving.outputs import Outputs
from patchserve_server.serving.peers import Peers
from patchserve_server.serving.preload import FolderReader, preload
from patchserve_server.serving.reference_builder import ReferenceBuilder
from patchserve_server.serving.reference_images import ReferenceImages
from patchserve_server.serving.reference_transfer import ReferenceTransfer
from patchserve_server.serving.shared_statistics import SharedStatistics
from patchserve_server.serving.statistics import ServerStatistics
from patchserve_server.serving.streams import Streams
from patchserve_server.serving.wall import SharedWall, Wall
from patchserve_server.store import ExportedFiles

if TYPE_CHECKING:
    from patchserve_server.engine.codec import OpenCodec  # imports torch

_log = logging.getLogger(__name__)


def read_credentials(settings: Settings) -> Credentials:
    return open_credentials(
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        tls_client_ca=settings.tls_client_ca,
        auth_tokens=settings.auth_tokens,
        jwt_issuer=settings.jwt_issuer,
        jwt_audience=settings.jwt_audience,
        jwt_jwks=settings.jwt_jwks,
    )


async def create_application(
    live: LiveSettings, addresses: Addresses, observation: Observation, resources: ExitStack
) -> Application:
    """The application, ready to serve at these addresses. `resources` closes the pools and the store.

    Raises:
        StartupError: the backbone, the store or the preloaded images cannot be used.
    """
    settings = live.now
    pools, events = open_pools(settings, resources), observation.events
    wall = Wall(pools.images)
    if settings.http_port is not None:  # only the HTTP face shows the wall
        events.add(wall)
    statistics = ServerStatistics()
    events.add(statistics)
    admissions = open_admissions(settings, events)
    engine = await open_engine(settings, pools, admissions, resources, observation=observation)
    limits = engine.limits
    outputs = await _open_outputs(live, pools, resources)
    turns = create_turns(settings, limits, decode=engine.detector.decode)
    observation.readings.add(lambda: [Reading("queue_images", turns.waiting)])
    drift = DriftWatch(engine.catalog.find, pools.images)
    observation.readings.add(drift.readings)
    inspector = create_inspector(
        settings,
        LocalScoring(engine.batcher),
        engine.drawing,
        pools,
        limits,
        turns=turns,
        outputs=outputs,
        drifts=drift,
        events=events,
    )
    return assemble(
        settings,
        addresses,
        limits,
        admissions,
        detector=engine.detector,
        catalog=engine.catalog,
        builder=engine.builder,
        inspector=inspector,
        reference_images=ReferenceImages(engine.catalog, pools.images, turns),
        wall=SharedWall(wall, Peers(), pools.images),
        statistics=SharedStatistics(statistics, Peers()),
        drift=drift,
        transfer=engine.transfer,
        events=events,
    )


def assemble(
    settings: Settings,
    addresses: Addresses,
    limits: ServerLimits,
    admissions: Admissions,
    *,
    detector: DetectorInfo,
    catalog: References,
    builder: Loads,
    inspector: Inspector,
    reference_images: ReferenceImageReader,
    wall: SharedWall,
    statistics: SharedStatistics,
    drift: Drifts,
    transfer: Transfer,
    events: Events,
) -> Application:
    """The application, of an engine in this process or in another one."""
    return Application(
        version=version("patchserve"),
        http_url=addresses.http_url,
        grpc_address=addresses.grpc,
        detector=detector,
        limits=limits,
        heatmap_scale=HeatmapScale(settings.heatmap_scale),
        catalog=catalog,
        builder=builder,
        inspector=inspector,
        reference_images=reference_images,
        streams=Streams(catalog, inspector, admissions.images, max_active=limits.max_batch_size, events=events),
        calls=admissions.calls,
        images=admissions.images,
        loads=admissions.loads,
        wall=wall,
        statistics=statistics,
        drift=drift,
        transfer=transfer,
    )


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """The engine of this process."""

    detector: DetectorInfo
    limits: ServerLimits
    catalog: Catalog
    batcher: Batcher
    drawing: BatchedDrawing | None  # None: the device does not decode
    builder: ReferenceBuilder
    transfer: ReferenceTransfer

    @property
    def longest_s(self) -> float:
        """How long the device has been working on the oldest of its batches; 0: there is none."""
        return max(self.batcher.longest_s, 0.0 if self.drawing is None else self.drawing.longest_s)


async def open_engine(
    settings: Settings,
    pools: Pools,
    admissions: Admissions,
    resources: ExitStack,
    *,
    observation: Observation,
    fronts: ConnectedFronts | None = None,
) -> LocalEngine:
    """The engine, with the references of the store and the preloaded one. Of an engine process: with its fronts.

    Raises:
        StartupError: the backbone, the store or the preloaded images cannot be used.
    """
    loop, events = asyncio.get_running_loop(), observation.events
    detector = await loop.run_in_executor(pools.inference, open_detector, settings)
    limits = server_limits(settings, admissions, max_batch_size=batch_size(settings, detector.info.device))
    catalog = await open_catalog(
        settings,
        detector,
        pools,
        resources,
        max_bytes=limits.max_bank_bytes,
        observation=observation,
        fronts=fronts,
    )
    batcher = Batcher(
        detector,
        pools.inference,
        workers=INFERENCE_WORKERS,
        max_batch_size=limits.max_batch_size,
        max_queue_delay_s=settings.max_queue_delay_ms / 1000,
        events=events,
    )
    drawing = create_drawing(detector, pools, limits.max_batch_size)
    builder = ReferenceBuilder(
        detector,
        catalog,
        images=pools.images,
        fitting=pools.fitting,
        limits=_image_limits(limits),
        max_images=limits.max_reference_images,
        max_bytes=limits.max_bank_bytes,
        events=events,
    )
    observation.readings.add(build_readings(detector.info))
    observation.readings.add(engine_readings(detector, catalog, batcher, drawing, limits.max_bank_bytes))
    if settings.preload is not None:
        stored = await catalog.current(DEFAULT_REFERENCE_ID)  # a restart must not undo what it was tuned to
        await preload(builder, FolderReader(settings.preload), None if stored is None else stored.sensitivity)
    files = ExportedFiles(own_folder(settings))
    transfer = ReferenceTransfer(catalog, detector, files, pools.opening, max_bytes=limits.max_bank_bytes)
    return LocalEngine(
        detector.info,
        limits,
        catalog,
        batcher,
        drawing,
        builder,
        transfer,
    )


def create_drawing(detector: Detector, pools: Pools, max_batch_size: int) -> BatchedDrawing | None:
    """What draws overlays on the device of this process; None: that does not decode."""
    if detector.info.decode != "device":
        return None
    return BatchedDrawing(detector, pools.drawing, workers=DRAWING_WORKERS, max_batch_size=max_batch_size)


def open_detector(settings: Settings) -> Detector:
    """The detector, after a first run. Blocks."""
    from patchserve_server.engine.factory import create_detector  # noqa: PLC0415 - a front needs no torch
    from patchserve_server.engine.measurements import Measurements  # noqa: PLC0415 - as above

    detector = create_detector(
        backbone=settings.backbone,
        layers=tuple(map(int, words_of(settings.backbone_layers))),
        weights=settings.weights,
        device=settings.device,
        precision=settings.precision,
        codec=_codec(settings),
        cache=networks_folder(settings),
        threads=settings.threads,
        search_product=settings.search_product,
        search_threads=settings.search_threads,
        measurements=Measurements(measurements_folder(settings)),
    )
    detector.warm_up()
    return detector


def _codec(settings: Settings) -> OpenCodec | None:
    """What opens the codec of the device; None: the CPU decodes."""
    if settings.decode == "cpu":
        return None
    from patchserve_server.imaging.on_device import open_codec  # noqa: PLC0415 - an extra, and imports torch

    return open_codec


async def _open_outputs(live: LiveSettings, pools: Pools, resources: ExitStack) -> Outputs | None:
    if live.now.save_outputs is None:
        return None
    loop = asyncio.get_running_loop()
    folder = await loop.run_in_executor(pools.outputs, OutputFolder, live.now.save_outputs, folder_limits(live.now))
    outputs = Outputs(folder, pools.outputs, only_anomalous=live.now.save_outputs_keep == "anomalous")
    resources.callback(asyncio.create_task(outputs.prune_periodically()).cancel)
    live.on_change(
        lambda settings: outputs.change(
            folder_limits(settings), only_anomalous=settings.save_outputs_keep == "anomalous"
        )
    )
    return outputs


def create_turns(settings: Settings, limits: ServerLimits, *, decode: str = "cpu") -> FairSemaphore:
    """How many images are processed at once; and a batch more, of clients that have none of these turns."""
    in_progress = images_in_progress(settings, limits.max_batch_size, decode=decode)
    return FairSemaphore(in_progress, reserved=limits.max_batch_size)


def create_inspector(
    settings: Settings,
    scoring: Scoring,
    drawing: Drawing | None,
    pools: Pools,
    limits: ServerLimits,
    *,
    turns: FairSemaphore,
    outputs: Outputs | None = None,
    drifts: Drifts,
    events: Events,
) -> LocalInspector:
    return LocalInspector(
        scoring,
        pools.images,
        turns,
        threads=settings.threads,
        limits=_image_limits(limits),
        max_overlay_bytes=limits.max_message_bytes,
        default_scale=HeatmapScale(settings.heatmap_scale),
        outputs=outputs,
        drifts=drifts,
        events=events,
        drawing=drawing,
    )


def _image_limits(limits: ServerLimits) -> ImageLimits:
    return ImageLimits(limits.max_image_bytes, limits.max_image_pixels)
