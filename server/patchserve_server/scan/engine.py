"""The engine of one process that inspects parts: that of the server, without its faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from patchserve_server.bootstrap.composition import create_drawing
from patchserve_server.bootstrap.limits import MIB, batch_size, images_in_progress
from patchserve_server.bootstrap.pools import INFERENCE_WORKERS, open_pools
from patchserve_server.config import Settings
from patchserve_server.domain.drift import Drift
from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.ports import Detector
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.imaging import ImageLimits
from patchserve_server.scan.buckets import Buckets
from patchserve_server.scan.inspecting import PartInspector
from patchserve_server.scan.options import Overlays, ScanOptions
from patchserve_server.scan.overlays import OverlayFiles
from patchserve_server.scan.reading import ImageReader
from patchserve_server.scan.results import Results
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.fairness import FairSemaphore
from patchserve_server.serving.local_inspector import LocalInspector
from patchserve_server.serving.local_scoring import LocalScoring
from patchserve_server.serving.reference_use import OpenReference

_READERS: Final = 16  # most of the time, one waits for a disk or for a bucket


@dataclass(frozen=True, slots=True)
class Work:
    """What a process needs to know to inspect parts of a scan."""

    settings: Settings
    options: ScanOptions
    results: str  # where they are
    open_detector: Callable[[Settings], Detector]


@contextmanager
def open_inspector(work: Work, reference: Reference, results: Results) -> Iterator[PartInspector]:
    """Opens the backbone and the reference; closes all threads when the block ends.

    Raises:
        StartupError: the backbone cannot be used.
        BankMismatchError: the reference was made with another one.
    """
    settings, options = work.settings, work.options
    limits = ImageLimits(settings.max_image_mib * MIB, settings.max_image_megapixels * 1_000_000)
    with ExitStack() as resources:
        reader = ImageReader(limits, resources.enter_context(Buckets()))
        detector = work.open_detector(settings)
        try:
            opened = OpenReference(reference.info, detector.open(reference.model))
        except BankMismatchError as error:
            raise error.for_reference(reference.reference_id) from None
        pools = open_pools(settings, resources)
        reading = ThreadPoolExecutor(_READERS, thread_name_prefix="reading")
        resources.callback(reading.shutdown, wait=False, cancel_futures=True)
        largest_batch = batch_size(settings, detector.info.device)
        in_progress = images_in_progress(settings, largest_batch, decode=detector.info.decode)
        overlays = OverlayFiles(options, results, pools.images, pools.outputs)
        inspector = LocalInspector(
            LocalScoring(
                Batcher(
                    detector,
                    pools.inference,
                    workers=INFERENCE_WORKERS,
                    max_batch_size=largest_batch,
                    max_queue_delay_s=0,
                )
            ),
            pools.images,
            FairSemaphore(in_progress),
            threads=settings.threads,
            limits=limits,
            max_overlay_bytes=settings.max_message_mib * MIB,
            default_scale=HeatmapScale.CALIBRATED,
            outputs=None if options.overlays is Overlays.NONE else overlays,
            drifts=_NoDrift(),
            operators_overlay=options.output(overlay=True),
            drawing=create_drawing(detector, pools, largest_batch),
        )
        yield PartInspector(
            options,
            inspector,
            opened,
            reader,
            results,
            overlays=overlays,
            reading=reading,
            writing=pools.outputs,
            room=FairSemaphore(in_progress + _READERS),
        )


class _NoDrift:
    """Implements `engine_ports.Drifts`: an archive has no recent scores."""

    def add(self, _reference_id: ReferenceId, _revision: Revision, _raw_score: float) -> None:
        """Nothing is kept."""

    def drift_of(self, _reference: ReferenceInfo) -> Drift:
        raise AssertionError("Nobody asks.")
