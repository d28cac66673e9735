"""The composition root: settings become a running server, and a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from patchserve_server.access import Credentials, keep_fresh, open_credentials
from patchserve_server.config import Settings
from patchserve_server.domain.errors import BankMismatchError, PatchserveError, StartupError
from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.ports import Detector, ReferenceStore
from patchserve_server.domain.reference import Reference
from patchserve_server.engine import create_detector
from patchserve_server.imaging import MAX_SIDE_PX, ImageLimits
from patchserve_server.rpc.server import GrpcServer
from patchserve_server.rpc.transport import Listening
from patchserve_server.serving.admission import Admission, Capacity
from patchserve_server.serving.application import Application, ServerLimits
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.fairness import FairSemaphore
from patchserve_server.serving.inspector import LocalInspector
from patchserve_server.serving.outputs import FolderSink
from patchserve_server.serving.reference_builder import LoadOptions, ReferenceBuilder
from patchserve_server.serving.streams import Streams
from patchserve_server.store import DiskReferenceStore, MemoryReferenceStore

T = TypeVar("T")

MIB = 2**20
FORCED_EXIT_CODE = 130
INFERENCE_WORKERS = 2  # one searches and judges while the backbone has the other's images
_SWITCH_INTERVAL_S = 0.0005
_NICENESS = 10
_NETWORKS = ".networks"  # in the store: begins with a dot, as no reference_id does

_log = logging.getLogger(__name__)


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Runs until SIGTERM or SIGINT, then drains; a second signal leaves at once.

    Args:
        settings: everything.
        announce: told one line when the server is ready.

    Raises:
        StartupError: it cannot run as it was told to.
    """
    # So long a thread that computes keeps the interpreter while the event loop waits for it. The default, ten times as
    # long, costs a tenth of the answers under overload.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    stop = _stop_on_signals()
    credentials = _credentials(settings)
    server = _server(settings, credentials)
    address = await server.start()
    with ExitStack() as pools:
        reloading = asyncio.create_task(keep_fresh(credentials.watched))
        pools.callback(reloading.cancel)
        try:
            application = await _unless_stopped(_application(settings, pools), stop)
            if application is not None:
                await server.ready(application)
                announce(_ready_line(address, application))
                await stop
            _log.info("Stopping: no new work after %.1f s, accepted work is finished", settings.drain_delay_s)
        except StartupError:
            await server.drain(delay_s=0, grace_s=0)
            raise
        await server.drain(delay_s=settings.drain_delay_s, grace_s=settings.drain_grace_s)
        _log.info("Stopped")


def _credentials(settings: Settings) -> Credentials:
    return open_credentials(
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        tls_client_ca=settings.tls_client_ca,
        auth_tokens=settings.auth_tokens,
        jwt_issuer=settings.jwt_issuer,
        jwt_audience=settings.jwt_audience,
        jwt_jwks=settings.jwt_jwks,
    )


def _server(settings: Settings, credentials: Credentials) -> GrpcServer:
    identity = credentials.identity
    listening = Listening(
        settings.host,
        settings.port,
        settings.max_message_mib * MIB,
        settings.max_calls,
        settings.stream_write_timeout_s,
        settings.max_connection_age_s,
        identity=(lambda: identity.value) if identity else None,
        insecure=settings.insecure,
    )
    return GrpcServer(listening, version("patchserve"), credentials.authenticator)


async def _unless_stopped(starting: Coroutine[Any, Any, T], stop: asyncio.Future[None]) -> T | None:
    """What is started, or None where the stop comes first."""
    task = asyncio.create_task(starting)
    first: set[asyncio.Future[Any]] = {task, stop}
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if stop.done():
        task.cancel()
        return None
    return await task


def _stop_on_signals() -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def on_signal() -> None:
        if stop.done():
            os._exit(FORCED_EXIT_CODE)
        stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _ready_line(address: str, application: Application) -> str:
    detector = application.detector
    return (
        f"patchserve {version('patchserve')} listening on {address} "
        f"({detector.backbone}, {detector.precision}, {detector.device})"
    )


async def _application(settings: Settings, pools: ExitStack) -> Application:
    def pool(name: str, threads: int) -> ThreadPoolExecutor:
        executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=_yield_to_the_loop)
        pools.callback(executor.shutdown, wait=False, cancel_futures=True)
        return executor

    loop = asyncio.get_running_loop()
    admissions = _admissions(settings)
    limits = _limits(settings, admissions)
    image_limits = ImageLimits(limits.max_image_bytes, limits.max_image_pixels)
    images, inference, fitting, storage = (
        pool("images", settings.threads),
        pool("inference", INFERENCE_WORKERS),
        pool("fitting", 1),
        pool("storage", 1),
    )
    detector = await loop.run_in_executor(inference, _warm_detector, settings)
    store = await loop.run_in_executor(storage, _open_store, settings.store, pools)
    catalog = Catalog(
        store,
        storage,
        max_bank_bytes=limits.max_bank_bytes,
        bytes_per_reference=detector.info.bytes_per_reference,
    )
    await catalog.load_all()
    for reference in catalog.in_memory():
        await loop.run_in_executor(inference, _prepare, detector, reference)
    scale = HeatmapScale(settings.heatmap_scale)
    inspector = LocalInspector(
        Batcher(
            detector,
            inference,
            workers=INFERENCE_WORKERS,
            max_batch_size=settings.max_batch_size,
            max_queue_delay_s=settings.max_queue_delay_ms / 1000,
        ),
        images,
        # Enough for a batch in work, the next one, and threads that decode and draw: more would only wait elsewhere.
        FairSemaphore(2 * settings.max_batch_size + 2 * settings.threads),
        input_size_px=detector.info.input_size_px,
        limits=image_limits,
        default_scale=scale,
        sink=FolderSink(settings.save_outputs) if settings.save_outputs else None,
    )
    loader = ReferenceBuilder(
        detector,
        catalog,
        images=images,
        fitting=fitting,
        limits=image_limits,
        max_images=settings.max_reference_images,
    )
    if settings.preload is not None:
        await _preload(loader, settings.preload)
    return Application(
        detector=detector.info,
        limits=limits,
        heatmap_scale=scale,
        catalog=catalog,
        loader=loader,
        inspector=inspector,
        sessions=Streams(catalog, inspector, admissions.images, max_active=settings.max_batch_size),
        calls=admissions.calls,
        images=admissions.images,
        loads=admissions.loads,
    )


def _yield_to_the_loop() -> None:
    """Gives this thread, and those that it starts, what the event loop and gRPC leave of the cores.

    Refusals and health checks are a moment's work each; among threads that compute they would wait their turn.
    """
    if sys.platform == "linux":  # where threads have a priority each
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _warm_detector(settings: Settings) -> Detector:
    detector = create_detector(
        backbone=settings.backbone,
        weights=settings.weights,
        device=settings.device,
        precision=settings.precision,
        cache=settings.store and settings.store / _NETWORKS,
        threads=settings.threads,
    )
    detector.warm_up()
    return detector


def _prepare(detector: Detector, reference: Reference) -> None:
    """Does what would make its first request slow; where it cannot be used, requests are answered with the error."""
    try:
        detector.prepare(reference.model)
    except BankMismatchError as error:
        _log.warning("Reference %r: %s", reference.reference_id, error.message)


def _open_store(folder: Path | None, closing: ExitStack) -> ReferenceStore:
    if folder is None:
        _log.info("References live in memory only; --store DIR keeps them over a restart")
        return MemoryReferenceStore()
    store = DiskReferenceStore(folder)
    closing.callback(store.close)
    return store


async def _preload(loader: ReferenceBuilder, folder: Path) -> None:
    files = await asyncio.to_thread(_images_in, folder)

    async def images() -> AsyncIterator[bytes]:
        for path in files:
            yield await asyncio.to_thread(path.read_bytes)

    try:
        reference = await loader.load(LoadOptions(), images())
    except PatchserveError as error:
        names = ", ".join(f"images[{index}] = {path.name}" for index, path in enumerate(files[:20]))
        raise StartupError(f"--preload {folder}: {error.message} ({names or 'the folder is empty'})") from error
    _log.info("Reference %r is made of %d images", reference.reference_id, len(files))


def _images_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise StartupError(f"--preload {folder}: {error.strerror}. Name a folder of images.") from error


@dataclass(frozen=True, slots=True)
class _Admissions:
    calls: Admission
    images: Admission
    loads: Admission


def _admissions(settings: Settings) -> _Admissions:
    share, one, message = settings.client_share, Capacity(1), Capacity(1, settings.max_message_mib * MIB)
    images = Capacity(settings.max_pending_images, max(settings.max_pending_mib * MIB, message.bytes))
    return _Admissions(
        calls=Admission("calls", Capacity(settings.max_calls), share=share, largest=one),
        images=Admission("images", images, share=share, largest=message),
        loads=Admission("loads", Capacity(settings.max_pending_loads), share=share, largest=one),
    )


def _limits(settings: Settings, admissions: _Admissions) -> ServerLimits:
    return ServerLimits(
        max_image_bytes=settings.max_image_mib * MIB,
        max_image_pixels=settings.max_image_megapixels * 1_000_000,
        max_image_side_px=MAX_SIDE_PX,
        max_message_bytes=settings.max_message_mib * MIB,
        max_reference_images=settings.max_reference_images,
        max_pending_images=settings.max_pending_images,
        max_in_flight=settings.max_in_flight,
        default_in_flight=min(settings.default_in_flight, settings.max_in_flight),
        default_timeout_s=settings.default_timeout_s,
        load_timeout_s=settings.load_timeout_s,
        max_bank_bytes=settings.max_bank_mib * MIB,
        max_pending_bytes=admissions.images.bound.bytes,
        max_pending_loads=settings.max_pending_loads,
        max_calls=settings.max_calls,
        max_batch_size=settings.max_batch_size,
        stream_write_timeout_s=settings.stream_write_timeout_s,
        max_client_pending_images=admissions.images.per_client.places,
        max_client_pending_bytes=admissions.images.per_client.bytes,
        max_client_pending_loads=admissions.loads.per_client.places,
        max_client_calls=admissions.calls.per_client.places,
        max_connection_age_s=settings.max_connection_age_s,
    )
