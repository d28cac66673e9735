"""Batches: images of one reference that wait for the detector are scored together."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import Scorer, ScoringTimes
from patchserve_server.serving.fairness import FairQueue, FlowKey

_FULL_BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class BatchedScores:
    """The raw scores of one image, and the times of its batch."""

    raw: RawScores
    times: ScoringTimes  # of the whole batch
    queue_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class _QueuedInput:
    scorer: Scorer
    model_input: ModelInputs  # (H, W, 3)
    result: asyncio.Future[BatchedScores]
    queued_at_s: float


class Batcher:
    """Scores queued images in batches.

    A free worker takes the image of the client whose turn it is and further images of the same reference, up to
    `max_batch_size`, of clients in turn. So batches grow under load. With `max_queue_delay_s`, an image may wait for
    others. A batch is a copy of its images, so large ones form smaller batches. An image whose caller has left is
    skipped. FairSemaphore (fairness.py) bounds the queue.
    """

    def __init__(self, executor: Executor, *, workers: int, max_batch_size: int, max_queue_delay_s: float) -> None:
        self._executor = executor
        self._free_workers = workers
        self._max_batch_size = max_batch_size
        self._max_queue_delay_s = max_queue_delay_s
        self._wake_up: asyncio.TimerHandle | None = None
        self._queue: FairQueue[_QueuedInput] = FairQueue()
        self._batches: set[asyncio.Task[None]] = set()

    async def score(self, scorer: Scorer, model_input: ModelInputs, flow: FlowKey) -> BatchedScores:
        """The raw scores of one model input, (H, W, 3) uint8."""
        result: asyncio.Future[BatchedScores] = asyncio.get_running_loop().create_future()
        self._queue.push(flow, _QueuedInput(scorer, model_input, result, time.perf_counter()))
        self._dispatch()
        return await result

    def _dispatch(self) -> None:
        while self._free_workers and (scorer := self._next_scorer()) is not None:
            if self._waits_for_more(scorer):
                return
            self._free_workers -= 1
            task = asyncio.create_task(self._run(self._take_batch(scorer)))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _next_scorer(self) -> Scorer | None:
        """The scorer of the image whose turn it is. Removes images before it whose caller has left."""
        while (head := self._queue.head()) is not None:
            flow, entry = head
            if not entry.result.done():
                return entry.scorer
            self._queue.discard(flow, entry)
        return None

    def _waits_for_more(self, scorer: Scorer) -> bool:
        """Whether the batch may grow and its oldest image can wait. If so, `_dispatch` is called again in time."""
        if not self._max_queue_delay_s:
            return False
        waiting = [entry for entry in self._queue if entry.scorer is scorer and not entry.result.done()]
        oldest_s = min(entry.queued_at_s for entry in waiting)
        remaining_s = oldest_s + self._max_queue_delay_s - time.perf_counter()
        if len(waiting) >= self._max_batch_size or remaining_s <= 0:
            return False
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_up = asyncio.get_running_loop().call_later(remaining_s, self._dispatch)
        return True

    def _take_batch(self, scorer: Scorer) -> list[_QueuedInput]:
        batch: list[_QueuedInput] = []
        nbytes = 0
        while len(batch) < self._max_batch_size and nbytes < _FULL_BATCH_BYTES:
            entry = self._queue.take(lambda entry: entry.scorer is scorer and not entry.result.done())
            if entry is None:
                break
            batch.append(entry)
            nbytes += entry.model_input.nbytes
        return batch

    async def _run(self, batch: list[_QueuedInput]) -> None:
        started = time.perf_counter()
        scorer, inputs = batch[0].scorer, [entry.model_input for entry in batch]
        try:
            scores, times = await asyncio.get_running_loop().run_in_executor(
                self._executor,
                lambda: scorer.score(np.stack(inputs) if len(inputs) > 1 else inputs[0][None]),  # (B, H, W, 3)
            )
        except Exception as error:  # noqa: BLE001 - each caller gets it
            for entry in batch:
                if not entry.result.done():
                    entry.result.set_exception(error)
        else:
            for entry, raw in zip(batch, scores, strict=True):
                if not entry.result.done():
                    entry.result.set_result(BatchedScores(raw, times, (started - entry.queued_at_s) * 1000))
        finally:
            self._free_workers += 1
            self._dispatch()
