"""Drawing by the device of this process, in batches."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.ports import Detector
from patchserve_server.serving.batch_workers import BatchWorkers
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
        self._workers = BatchWorkers(workers, self._dispatch)
        self._max_batch_size = max_batch_size
        self._queue: FairQueue[_QueuedDrawing] = FairQueue()

    @property
    def waiting(self) -> int:
        """How many overlays wait for a batch. Any thread may ask."""
        return len(self._queue)

    @property
    def longest_s(self) -> float:
        """How long the oldest of the batches that are being drawn has been drawn; 0: there is none."""
        return self._workers.longest_s

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
        while not self._workers.are_busy and (batch := self._take_batch()):
            self._workers.begin(partial(self._run, batch))

    def _take_batch(self) -> list[_QueuedDrawing]:
        batch: list[_QueuedDrawing] = []
        pixels = 0
        for queued in self._queue.take(lambda queued: not queued.result.done()):
            batch.append(queued)
            pixels += queued.pixels
            if len(batch) >= self._max_batch_size or pixels >= _FULL_BATCH_PIXELS:
                break
        return batch

    async def _run(self, batch: Sequence[_QueuedDrawing], _started_s: float) -> None:
        loop, drawings = asyncio.get_running_loop(), [queued.drawing for queued in batch]
        outcomes: Sequence[bytes | Exception]
        try:
            outcomes = await loop.run_in_executor(self._executor, self._draw, drawings)
        except RuntimeError as error:  # the executor is shut down: no caller waits for ever
            outcomes = [error] * len(batch)
        for queued, outcome in zip(batch, outcomes, strict=True):
            _deliver(queued.result, outcome)

    def _draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        """Whatever goes wrong on the device, the CPU can draw the same."""
        try:
            drawn = self._detector.draw(drawings)
        except Exception as error:  # noqa: BLE001 - its callers have their overlays from the CPU
            _log.debug("The device failed to draw", exc_info=True)  # the inspector tells it, once a minute
            return [DeviceCodecError(f"{type(error).__name__}: {error}") for _ in drawings]
        if len(drawn) != len(drawings):
            return [DeviceCodecError(f"It drew {len(drawn)} of {len(drawings)} overlays.") for _ in drawings]
        return drawn


def _deliver(result: asyncio.Future[bytes], outcome: bytes | Exception) -> None:
    if result.done():  # its caller may have left
        return
    if isinstance(outcome, bytes):
        result.set_result(outcome)
    else:
        result.set_exception(outcome)
