"""An inspector with a detector that decodes and draws, or that does not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from fakes.detector import FakeDetector
from fakes.gray import open_reference, reference
from patchserve_server import imaging
from patchserve_server.domain.events import NOBODY, Events, ImageInspected
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import HeatmapScale, Inspection, OutputOptions
from patchserve_server.domain.work_events import ImageProcessed, Stage
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.drawing import BatchedDrawing
from patchserve_server.serving.drift import DriftWatch
from patchserve_server.serving.fairness import FairSemaphore, FlowKey
from patchserve_server.serving.local_inspector import LocalInspector
from patchserve_server.serving.local_scoring import LocalScoring
from patchserve_server.serving.output_folder import FolderLimits, OutputFolder
from patchserve_server.serving.outputs import Outputs

FLOW = FlowKey("a")
REFERENCE = open_reference(reference(level=100))


class Heard(Events):
    def __init__(self) -> None:
        self.inspections: list[ImageInspected] = []
        self.images: list[ImageProcessed] = []
        self.fallbacks: list[Stage] = []

    def inspected(self, event: ImageInspected) -> None:
        self.inspections.append(event)

    def processed(self, event: ImageProcessed) -> None:
        self.images.append(event)

    def device_fell_back(self, stage: Stage) -> None:
        self.fallbacks.append(stage)


@dataclass(eq=False)
class Bench:
    """An inspector, and what it works with."""

    inspector: LocalInspector
    detector: FakeDetector
    heard: Heard = field(default_factory=Heard)

    async def inspect(self, image: SentImage, options: OutputOptions | None = None) -> Inspection:
        return await self.inspector.inspect(REFERENCE, image, options or OutputOptions(), FLOW)


@contextlib.contextmanager
def local_inspector(
    detector: FakeDetector,
    events: Events = NOBODY,
    *,
    outputs: Path | None = None,
    max_overlay_bytes: int = 2**26,
    scale: HeatmapScale = HeatmapScale.CALIBRATED,
) -> Iterator[LocalInspector]:
    """An inspector with threads of its own."""
    with ThreadPoolExecutor(2) as device, ThreadPoolExecutor(2) as images, ThreadPoolExecutor(1) as writing:
        limits, decodes = FolderLimits(100, timedelta(days=1), 10**8), detector.info.decode == "device"
        yield LocalInspector(
            LocalScoring(Batcher(detector, device, workers=1, max_batch_size=4, max_queue_delay_s=0)),
            images,
            FairSemaphore(8),
            threads=2,
            limits=imaging.ImageLimits(),
            max_overlay_bytes=max_overlay_bytes,
            default_scale=scale,
            outputs=Outputs(OutputFolder(outputs, limits), writing, only_anomalous=False) if outputs else None,
            drifts=DriftWatch(lambda _: None, images),
            events=events,
            drawing=BatchedDrawing(detector, device, workers=1, max_batch_size=4) if decodes else None,
        )


@contextlib.asynccontextmanager
async def inspecting(
    detector: FakeDetector, outputs: Path | None = None, max_bytes: int = 2**26
) -> AsyncIterator[Bench]:
    """With the reference REFERENCE, of level 100."""
    heard = Heard()
    with local_inspector(detector, heard, outputs=outputs, max_overlay_bytes=max_bytes) as inspector:
        yield Bench(inspector, detector, heard)
