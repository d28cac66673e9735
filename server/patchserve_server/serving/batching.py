"""Micro-batches: images that wait for the detector together go through it together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import Detection
from patchserve_server.domain.ports import DetectionTimes, Detector
from patchserve_server.domain.reference import ReferenceModel


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """One image's share of a batch."""

    detection: Detection
    times: DetectionTimes  # the batch's
    queue_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    model: ReferenceModel
    model_input: ModelInputs  # (S, S, 3)
    result: asyncio.Future[Detected]
    since: float


class Batcher:
    """Feeds a detector from one queue.

    Whenever one of the `workers` is free it takes what is there, up to `max_batch_size` images of one reference, the
    oldest first. So batches grow under load, and where `max_queue_delay_s` lets an image wait for company. An entry
    whose caller has gone is skipped. FairSemaphore (fairness.py) bounds the queue and is fair: here first come,
    first served is enough.
    """

    def __init__(
        self, detector: Detector, executor: Executor, *, workers: int, max_batch_size: int, max_queue_delay_s: float
    ) -> None:
        self._detector = detector
        self._executor = executor
        self._free_workers = workers
        self._max_batch_size = max_batch_size
        self._max_queue_delay_s = max_queue_delay_s
        self._wake_up: asyncio.TimerHandle | None = None
        self._queue: deque[_Waiting] = deque()
        self._batches: set[asyncio.Task[None]] = set()

    async def detect(self, model: ReferenceModel, model_input: ModelInputs) -> Detected:
        """The detection of one image, (S, S, 3) uint8.

        Raises:
            BankMismatchError: the reference was made by another backbone, other weights or another precision.
        """
        result: asyncio.Future[Detected] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(model, model_input, result, time.perf_counter()))
        self._dispatch()
        return await result

    def _dispatch(self) -> None:
        while self._free_workers and (batch := self._next_batch()):
            if self._waits_for_company(batch):
                return
            self._free_workers -= 1
            task = asyncio.create_task(self._run(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _waits_for_company(self, batch: list[_Waiting]) -> bool:
        """Whether a batch is back in the queue, to be looked at again when its oldest has waited long enough."""
        left_s = batch[0].since + self._max_queue_delay_s - time.perf_counter()
        if len(batch) >= self._max_batch_size or left_s <= 0:
            return False
        self._queue.extendleft(reversed(batch))
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_up = asyncio.get_running_loop().call_later(left_s, self._dispatch)
        return True

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        while self._queue and len(batch) < self._max_batch_size:
            entry = self._queue.popleft()
            if entry.result.done():  # cancelled: nobody waits for it
                continue
            if batch and entry.model is not batch[0].model:
                others.append(entry)
            else:
                batch.append(entry)
        self._queue.extendleft(reversed(others))
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        started = time.perf_counter()
        inputs = np.stack([entry.model_input for entry in batch])  # (B, S, S, 3)
        try:
            detections, times = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._detector.detect, batch[0].model, inputs
            )
        except Exception as error:  # noqa: BLE001 - each caller gets it
            for entry in batch:
                if not entry.result.done():
                    entry.result.set_exception(error)
        else:
            for entry, detection in zip(batch, detections, strict=True):
                if not entry.result.done():
                    entry.result.set_result(Detected(detection, times, (started - entry.since) * 1000))
        finally:
            self._free_workers += 1
            self._dispatch()
