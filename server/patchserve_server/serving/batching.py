"""Batches: images that wait for the detector are scored together, whatever their references."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from patchserve_server.domain.call_events import Work, current_work
from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.domain.ports import Detector, ScoredPart, Scorer, ScorerInputs, ScoringTimes
from patchserve_server.domain.work_events import BatchScored
from patchserve_server.serving.batch_workers import BatchWorkers
from patchserve_server.serving.fairness import FairQueue, FlowKey

_FULL_BATCH_BYTES = 16 * 2**20
_FULL_BATCH_PIXELS = 128 * 2**20
"""Of files. A device decodes some of them at a time: more would not take too much memory, but too long."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchedScores:
    """The raw scores of one image, and the times of its batch."""

    raw: RawScores
    times: ScoringTimes
    queue_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class _QueuedInput:
    scorer: Scorer
    batch_key: str
    image: ModelInputs | JpegFile  # (H, W, 3); or for a detector that decodes
    result: asyncio.Future[BatchedScores]
    queued_at_s: float
    work: Work


class Batcher:
    """Scores queued images in batches: model inputs, and files if the detector decodes.

    A free worker takes the image of the client whose turn it is and further images with the same `Scorer.batch_key`,
    of clients in turn, up to `max_batch_size`. So batches grow under load. With `max_queue_delay_s`, an image may wait
    for others. Large images form smaller batches. An image whose caller has left is skipped. FairSemaphore
    (fairness.py) bounds the queue.
    """

    def __init__(
        self,
        detector: Detector,
        executor: Executor,
        *,
        workers: int,
        max_batch_size: int,
        max_queue_delay_s: float,
        events: Events = NOBODY,
    ) -> None:
        self._detector = detector
        self._executor = executor
        self._workers = BatchWorkers(workers, self._dispatch)
        self._max_batch_size = max_batch_size
        self._max_queue_delay_s = max_queue_delay_s
        self._wake_up: asyncio.TimerHandle | None = None
        self._queue: FairQueue[_QueuedInput] = FairQueue()
        self._events = events

    @property
    def waiting(self) -> int:
        """How many images wait for a batch. Any thread may ask."""
        return len(self._queue)

    @property
    def longest_s(self) -> float:
        """How long the oldest of the batches that are being scored has been scored; 0: there is none."""
        return self._workers.longest_s

    async def score(self, scorer: Scorer, image: ModelInputs | JpegFile, flow: FlowKey) -> BatchedScores:
        """The raw scores of one model input, (H, W, 3) uint8, or of a file.

        Raises:
            DeviceCodecError: the device cannot decode the file.
        """
        result: asyncio.Future[BatchedScores] = asyncio.get_running_loop().create_future()
        work = current_work() if self._events.is_heard else None
        queued = _QueuedInput(scorer, scorer.batch_key, image, result, time.perf_counter(), work)
        self._queue.push(flow, queued)
        self._dispatch()
        try:
            return await result
        except asyncio.CancelledError:
            self._queue.discard(flow, queued)  # its turn is given back, and others come: it must not keep its memory
            raise

    def _dispatch(self) -> None:
        while not self._workers.are_busy and (key := self._next_key()) is not None:
            if self._waits_for_more(key):
                return
            self._workers.begin(partial(self._run, self._take_batch(key)))

    def _next_key(self) -> str | None:
        """The batch key of the image whose turn it is. Removes images before it whose caller has left."""
        while (head := self._queue.head()) is not None:
            flow, entry = head
            if not entry.result.done():
                return entry.batch_key
            self._queue.discard(flow, entry)
        return None

    def _waits_for_more(self, key: str) -> bool:
        """Whether the batch may grow and its oldest image can wait. If so, `_dispatch` is called again in time."""
        if not self._max_queue_delay_s:
            return False
        waiting = [entry for entry in self._queue if entry.batch_key == key and not entry.result.done()]
        oldest_s = min(entry.queued_at_s for entry in waiting)
        remaining_s = oldest_s + self._max_queue_delay_s - time.perf_counter()
        if len(waiting) >= self._max_batch_size or remaining_s <= 0:
            return False
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_up = asyncio.get_running_loop().call_later(remaining_s, self._dispatch)
        return True

    def _take_batch(self, key: str) -> list[_QueuedInput]:
        batch: list[_QueuedInput] = []
        filled = 0.0
        for entry in self._queue.take(lambda entry: entry.batch_key == key and not entry.result.done()):
            batch.append(entry)
            filled += _share_of_batch(entry.image)
            if len(batch) >= self._max_batch_size or filled >= 1:
                break
        return batch

    async def _run(self, batch: list[_QueuedInput], started_s: float) -> None:
        loop, parts, failed = asyncio.get_running_loop(), _by_scorer(batch), False

        def score() -> None:
            inputs = [(part[0].scorer, _inputs_of(part)) for part in parts]
            for scored in self._detector.score_batch(inputs):
                loop.call_soon_threadsafe(_deliver, parts[scored.number], scored, started_s)

        try:
            await loop.run_in_executor(self._executor, score)
        except Exception as error:  # noqa: BLE001 - each caller gets it
            failed = True
            _fail(batch, error)
        else:
            _fail(batch, RuntimeError("The detector gave no scores."))  # has no effect on those that have some
        if self._events.is_heard:
            works, duration_s = tuple(entry.work for entry in batch), time.perf_counter() - started_s
            self._events.batch_scored(BatchScored(works, len(parts), started_s, duration_s, failed))


def _share_of_batch(image: ModelInputs | JpegFile) -> float:
    """How much of a full batch one image is. A batch is a copy of model inputs, and of no file."""
    if isinstance(image, JpegFile):
        return math.prod(image.size_px) / _FULL_BATCH_PIXELS
    return image.nbytes / _FULL_BATCH_BYTES


def _by_scorer(batch: Sequence[_QueuedInput]) -> list[list[_QueuedInput]]:
    """The images of each reference: files, and model inputs. Those of another shape, which is an error, apart."""
    parts = dict[tuple[int, tuple[int, ...]], list[_QueuedInput]]()
    for entry in batch:
        shape = () if isinstance(entry.image, JpegFile) else entry.image.shape
        parts.setdefault((id(entry.scorer), shape), []).append(entry)
    return list(parts.values())


def _inputs_of(part: Sequence[_QueuedInput]) -> ScorerInputs:
    files = [entry.image for entry in part if isinstance(entry.image, JpegFile)]
    return files or np.stack([entry.image for entry in part if not isinstance(entry.image, JpegFile)])


def _deliver(part: Sequence[_QueuedInput], scored: ScoredPart, started_s: float) -> None:
    for number, error in scored.undecoded.items():
        _fail([part[number]], error)
    if isinstance(scored.scores, Exception):
        _fail(part, scored.scores)
        return
    decoded = [entry for number, entry in enumerate(part) if number not in scored.undecoded]
    for entry, raw in zip(decoded, scored.scores, strict=True):
        if not entry.result.done():  # its caller may have left
            entry.result.set_result(BatchedScores(raw, scored.times, (started_s - entry.queued_at_s) * 1000))


def _fail(entries: Sequence[_QueuedInput], error: Exception) -> None:
    for entry in entries:
        if not entry.result.done():
            entry.result.set_exception(error)
