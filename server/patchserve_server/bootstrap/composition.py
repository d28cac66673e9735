"""The composition root: every object of the server is created and connected here."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from patchserve_server.access import Credentials, check_exposure, open_credentials
from patchserve_server.bootstrap.limits import MIB, http_connections, open_admissions, reading_limits, server_limits
from patchserve_server.bootstrap.process import lower_thread_priority
from patchserve_server.bootstrap.server import Addresses, HttpFace, Server
from patchserve_server.config import Settings, words_of
from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.events import Events
from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.ports import Detector, ReferenceStore
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.domain.words import counted
from patchserve_server.engine.factory import create_detector
from patchserve_server.imaging import ImageLimits
from patchserve_server.rpc.server import GrpcServer
from patchserve_server.rpc.transport import Listening
from patchserve_server.serving.application import Application, ServerLimits
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.serving.fairness import FairSemaphore
from patchserve_server.serving.inspector import LocalInspector
from patchserve_server.serving.local_scoring import LocalScoring
from patchserve_server.serving.output_folder import FolderLimits, OutputFolder
from patchserve_server.serving.outputs import Outputs
from patchserve_server.serving.preload import FolderReader, preload
from patchserve_server.serving.readiness import Readiness
from patchserve_server.serving.reception import Reception
from patchserve_server.serving.reference_builder import ReferenceBuilder
from patchserve_server.serving.reference_images import ReferenceImages
from patchserve_server.serving.refusal_pacing import RefusalPacing
from patchserve_server.serving.streams import Streams
from patchserve_server.serving.wall import Wall
from patchserve_server.store import FolderReferenceStore, MemoryReferenceStore
from patchserve_server.web.listening import HttpListening

INFERENCE_WORKERS = 2  # one batch searches while the other runs the backbone
_DELAYED_REFUSALS_PER_CALL = 4  # of --max-calls; each needs 20 KiB, and what its caller has sent unread
OPENING_WORKERS = 4  # one slow opening does not delay the others
_NETWORKS = ".networks"  # in the store; no reference_id starts with a dot

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


def create_server(settings: Settings, credentials: Credentials) -> Server:
    check_exposure(settings.host, credentials, insecure=settings.insecure)
    entrance = Entrance(
        Readiness(),
        Reception(settings.max_idle_streams),
        RefusalPacing(_DELAYED_REFUSALS_PER_CALL * settings.max_calls),
        FailureLog(),
    )
    identity = credentials.identity
    listening = Listening(
        settings.host,
        settings.port,
        settings.max_message_mib * MIB,
        settings.max_calls,
        settings.stream_write_timeout_s,
        settings.max_reference_images,
        reading_limits(settings),
        settings.max_connection_age_s,
        identity=(lambda: identity.value) if identity else None,
    )
    grpc = GrpcServer(listening, entrance, credentials.authenticator)
    return Server(entrance, grpc, _create_http_face(settings, entrance, credentials))


def _create_http_face(settings: Settings, entrance: Entrance, credentials: Credentials) -> HttpFace | None:
    if settings.http_port is None:
        return None
    try:
        from patchserve_server.web.server import HttpServer  # noqa: PLC0415 - only if it is used: an extra
    except ModuleNotFoundError as error:
        raise StartupError(
            f"--http-port needs the extra http ({error.name} is missing): install patchserve[http]."
        ) from None
    identity = credentials.identity
    listening = HttpListening(
        host=settings.host,
        port=settings.http_port,
        max_message_bytes=settings.max_message_mib * MIB,
        first_message_timeout_s=settings.first_message_timeout_s,
        write_timeout_s=settings.stream_write_timeout_s,
        max_connections=http_connections(settings),
        client_share=settings.client_share,
        large_messages=reading_limits(settings).large_places,
        max_connection_age_s=settings.max_connection_age_s,
        identity=(lambda: identity.value) if identity else None,
        allowed_origins=words_of(settings.http_allowed_origins),
        allowed_hosts=words_of(settings.http_allowed_hosts),
    )
    return HttpServer(listening, entrance, credentials.authenticator)


async def create_application(settings: Settings, addresses: Addresses, resources: ExitStack) -> Application:
    """The application, ready to serve at these addresses. `resources` closes the pools and the store.

    Raises:
        StartupError: the backbone, the store or the preloaded images cannot be used.
    """
    loop = asyncio.get_running_loop()
    pools = _open_pools(settings, resources)
    wall = Wall(pools.images)
    events = None if settings.http_port is None else wall  # only the HTTP face shows the wall
    admissions = open_admissions(settings, events)
    limits = server_limits(settings, admissions)
    detector = await loop.run_in_executor(pools.inference, open_detector, settings)
    store = await loop.run_in_executor(pools.storage, _open_store, settings.store, resources)
    catalog = await _open_catalog(settings, store, detector, pools, limits, events=events)
    outputs = await _open_outputs(settings, pools, resources)
    # Enough for the running batch, the next one, and the threads that decode and draw; and for a batch of images of
    # clients that have none of these turns.
    turns = FairSemaphore(2 * settings.max_batch_size + 2 * settings.threads, reserved=settings.max_batch_size)
    inspector = _create_inspector(settings, detector, outputs, pools, limits, turns=turns, events=events)
    builder = ReferenceBuilder(
        detector,
        catalog,
        images=pools.images,
        fitting=pools.fitting,
        limits=_image_limits(limits),
        max_images=limits.max_reference_images,
        max_bytes=limits.max_bank_bytes,
    )
    if settings.preload is not None:
        stored = catalog.find(DEFAULT_REFERENCE_ID)  # a restart must not undo what it was tuned to
        await preload(builder, FolderReader(settings.preload), None if stored is None else stored.sensitivity)
    return Application(
        version=version("patchserve"),
        http_url=addresses.http_url,
        grpc_address=addresses.grpc,
        detector=detector.info,
        limits=limits,
        heatmap_scale=HeatmapScale(settings.heatmap_scale),
        catalog=catalog,
        builder=builder,
        inspector=inspector,
        reference_images=ReferenceImages(catalog, pools.images, turns),
        streams=Streams(catalog, inspector, admissions.images, max_active=settings.max_batch_size),
        calls=admissions.calls,
        images=admissions.images,
        loads=admissions.loads,
        wall=wall,
    )


@dataclass(frozen=True, slots=True)
class _Pools:
    images: ThreadPoolExecutor
    inference: ThreadPoolExecutor
    fitting: ThreadPoolExecutor
    opening: ThreadPoolExecutor
    storage: ThreadPoolExecutor
    outputs: ThreadPoolExecutor


def _open_pools(settings: Settings, resources: ExitStack) -> _Pools:
    def pool(name: str, threads: int, *, finishes: bool = False) -> ThreadPoolExecutor:
        executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=lower_thread_priority)
        resources.callback(executor.shutdown, wait=finishes, cancel_futures=not finishes)
        return executor

    return _Pools(
        images=pool("images", settings.threads),
        inference=pool("inference", INFERENCE_WORKERS),
        fitting=pool("fitting", 1),
        opening=pool("opening", OPENING_WORKERS),
        storage=pool("storage", 1),
        outputs=pool("outputs", 1, finishes=True),
    )


def open_detector(settings: Settings) -> Detector:
    """The detector, after a first run. Blocks."""
    detector = create_detector(
        backbone=settings.backbone,
        layers=tuple(map(int, words_of(settings.backbone_layers))),
        weights=settings.weights,
        device=settings.device,
        precision=settings.precision,
        cache=settings.store and settings.store / _NETWORKS,
        threads=settings.threads,
    )
    detector.warm_up()
    return detector


def _open_store(folder: Path | None, resources: ExitStack) -> ReferenceStore:
    if folder is None:
        _log.info("References are kept in memory only; --store DIR keeps them over a restart")
        return MemoryReferenceStore()
    store = FolderReferenceStore(folder)
    resources.callback(store.close)
    return store


async def _open_catalog(
    settings: Settings,
    store: ReferenceStore,
    detector: Detector,
    pools: _Pools,
    limits: ServerLimits,
    *,
    events: Events | None,
) -> Catalog:
    catalog = Catalog(
        store,
        detector,
        storage=pools.storage,
        opening=pools.opening,
        max_bytes=limits.max_bank_bytes,
        events=events,
    )
    await catalog.load_all()
    if settings.store is not None:
        damaged = f", {catalog.damaged_count} of them damaged" if catalog.damaged_count else ""
        found = counted(catalog.usable_count + catalog.damaged_count, "reference")
        _log.info("Found %s in %s%s; %d open", found, settings.store, damaged, len(catalog.open_ids()))
    return catalog


async def _open_outputs(settings: Settings, pools: _Pools, resources: ExitStack) -> Outputs | None:
    if settings.save_outputs is None:
        return None
    limits = FolderLimits(
        settings.save_outputs_max_count,
        timedelta(days=settings.save_outputs_max_days),
        settings.save_outputs_max_mib * MIB,
    )
    loop = asyncio.get_running_loop()
    folder = await loop.run_in_executor(pools.outputs, OutputFolder, settings.save_outputs, limits)
    outputs = Outputs(folder, pools.outputs, only_anomalous=settings.save_outputs_keep == "anomalous")
    resources.callback(asyncio.create_task(outputs.prune_periodically()).cancel)
    return outputs


def _create_inspector(
    settings: Settings,
    detector: Detector,
    outputs: Outputs | None,
    pools: _Pools,
    limits: ServerLimits,
    *,
    turns: FairSemaphore,
    events: Events | None,
) -> LocalInspector:
    batcher = Batcher(
        detector,
        pools.inference,
        workers=INFERENCE_WORKERS,
        max_batch_size=settings.max_batch_size,
        max_queue_delay_s=settings.max_queue_delay_ms / 1000,
    )
    return LocalInspector(
        LocalScoring(batcher),
        pools.images,
        turns,
        threads=settings.threads,
        limits=_image_limits(limits),
        max_overlay_bytes=limits.max_message_bytes,
        default_scale=HeatmapScale(settings.heatmap_scale),
        outputs=outputs,
        events=events,
    )


def _image_limits(limits: ServerLimits) -> ImageLimits:
    return ImageLimits(limits.max_image_bytes, limits.max_image_pixels)
