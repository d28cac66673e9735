"""Drawing by the device of this process, in batches."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass

from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.ports import Detector
from patchserve_server.serving.fairness import FairQueue, FlowKey

_log = logging.getLogger(__name__)

_FULL_BATCH_PIXELS = 32 * 2**20  # of the images and of their overlays


@dataclass(frozen=True, slots=True, eq=False)
class _QueuedDrawing:
    drawing: OverlayDrawing
    result: asyncio.Future[bytes]

    @property
    def pixels(self) -> int:
        return math.prod(self.drawing.file.size_px) + math.prod(self.drawing.size_px)


class BatchedDrawing:
    """Implements `engine_ports.Drawing`.

    A free worker takes the drawings that wait, of clients in turn. Those whose caller has left are skipped.
    FairSemaphore (fairness.py) bounds the queue: an image waits for one drawing at most.

    Args:
        detector: decodes and draws.
        executor: its threads wait for the device.
        workers: how many of them.
        max_batch_size: how many overlays are drawn at once, at most.
    """

    def __init__(self, detector: Detector, executor: Executor, *, workers: int, max_batch_size: int) -> None:
        self._detector = detector
        self._executor = executor
        self._free_workers = workers
        self._max_batch_size = max_batch_size
        self._queue: FairQueue[_QueuedDrawing] = FairQueue()
        self._batches: set[asyncio.Task[None]] = set()
        self._started_s: set[float] = set()  # of the batches that are being drawn

    @property
    def waiting(self) -> int:
        """How many overlays wait for a batch. Any thread may ask."""
        return len(self._queue)

    @property
    def longest_s(self) -> float:
        """How long the oldest of the batches that are being drawn has been drawn; 0: there is none."""
        return time.perf_counter() - min(self._started_s) if self._started_s else 0.0

    async def draw(self, drawing: OverlayDrawing, flow: FlowKey) -> bytes:
        queued = _QueuedDrawing(drawing, asyncio.get_running_loop().create_future())
        self._queue.push(flow, queued)
        self._dispatch()
        try:
            return await queued.result
        except asyncio.CancelledError:
            self._queue.discard(flow, queued)
            raise

    def _dispatch(self) -> None:
        while self._free_workers and (batch := self._take_batch()):
            self._free_workers -= 1
            task = asyncio.create_task(self._run(batch), context=Context())  # of no call: it has drawings of several
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _take_batch(self) -> list[_QueuedDrawing]:
        batch: list[_QueuedDrawing] = []
        pixels = 0
        for queued in self._queue.take(lambda queued: not queued.result.done()):
            batch.append(queued)
            pixels += queued.pixels
            if len(batch) >= self._max_batch_size or pixels >= _FULL_BATCH_PIXELS:
                break
        return batch

    async def _run(self, batch: Sequence[_QueuedDrawing]) -> None:
        started_s = time.perf_counter()
        self._started_s.add(started_s)
        drawings = [queued.drawing for queued in batch]
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._executor, self._draw, drawings)
        finally:
            self._started_s.discard(started_s)
            self._free_workers += 1
            self._dispatch()
        for queued, outcome in zip(batch, outcomes, strict=True):
            _deliver(queued.result, outcome)

    def _draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        """Whatever goes wrong on the device, the CPU can draw the same."""
        try:
            drawn = self._detector.draw(drawings)
        except Exception as error:  # noqa: BLE001 - its callers have their overlays from the CPU
            _log.exception("The device failed to draw")
            return [DeviceCodecError(str(error) or type(error).__name__)] * len(drawings)
        if len(drawn) != len(drawings):
            return [DeviceCodecError(f"It drew {len(drawn)} of {len(drawings)} overlays.")] * len(drawings)
        return drawn


def _deliver(result: asyncio.Future[bytes], outcome: bytes | Exception) -> None:
    if result.done():  # its caller may have left
        return
    if isinstance(outcome, bytes):
        result.set_result(outcome)
    else:
        result.set_exception(outcome)
