"""Streams: frames in, exactly one outcome for each accepted frame, in bounded room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from patchserve_server.domain.errors import DeadlineError, FrameDroppedError
from patchserve_server.domain.inspection import Inspection
from patchserve_server.domain.stream import (
    Frame,
    FrameOutcome,
    OverflowPolicy,
    ResultOrdering,
    StreamConfig,
    StreamNotice,
)
from patchserve_server.serving.admission import Admission, Capacity, Permit
from patchserve_server.serving.fairness import FlowKey

Inspect = Callable[[Frame], Awaitable[Inspection]]


class FrameQueue:
    """The frames of one stream, from their arrival until their outcomes are taken.

    At most `max_in_flight` outcomes are owed at a time under BLOCK: `put` waits. Under DROP_OLDEST `put` drops instead;
    as a dropped frame still has an outcome to deliver, it waits too once so many are owed as only a caller who does not
    read lets pile up. At most `max_active` frames are worked on; the others may still be dropped.

    A frame has its place and its bytes in the server's room from its acceptance until its outcome was taken. Where
    there is none, `put` waits too; under DROP_OLDEST it first gives up the stream's own frames that are not started.
    """

    def __init__(
        self, config: StreamConfig, inspect: Inspect, *, max_active: int, admission: Admission, flow: FlowKey
    ) -> None:
        self._config = config
        self._inspect = inspect
        self._admission = admission
        self._flow = flow
        self._holds: dict[int, Permit] = {}
        self._active = asyncio.Semaphore(min(max_active, config.max_in_flight))
        blocks = config.overflow is OverflowPolicy.BLOCK
        self._undelivered = asyncio.Semaphore(config.max_in_flight if blocks else 16 + 8 * config.max_in_flight)
        self._sequence = 0
        self._work: dict[int, asyncio.Task[None]] = {}  # frames under way, in the order of their arrival
        self._not_started: dict[int, Frame] = {}
        self._events: asyncio.Queue[FrameOutcome | StreamNotice | None] = asyncio.Queue()
        self._held: dict[int, FrameOutcome] = {}  # INPUT: outcomes that wait for an earlier frame's
        self._next_delivered = 0
        self._owed = 0
        self._closed = False

    async def put(self, frame: Frame) -> None:
        """Accepts a frame, as soon as there is room for its outcome."""
        await self._undelivered.acquire()
        hold = await self._room_for(frame)
        sequence = self._sequence
        self._sequence += 1
        self._owed += 1
        self._holds[sequence] = hold
        self._not_started[sequence] = frame
        if self._config.overflow is OverflowPolicy.DROP_OLDEST and len(self._work) >= self._config.max_in_flight:
            self._drop(next(iter(self._not_started)))
        if sequence in self._not_started:
            self._work[sequence] = asyncio.create_task(self._answer(sequence, frame))

    async def _room_for(self, frame: Frame) -> Permit:
        room = Capacity(1, len(frame.image))
        if self._config.overflow is OverflowPolicy.DROP_OLDEST:
            while self._not_started:
                if (hold := self._admission.try_acquire_for_stream(self._flow, room)) is not None:
                    return hold
                self._drop(next(iter(self._not_started)))
        return await self._admission.acquire_for_stream(self._flow, room)

    def notify(self, notice: StreamNotice) -> None:
        """Puts a notice among the outcomes."""
        self._events.put_nowait(notice)

    def close(self) -> None:
        """No frame follows; `events` ends after the last outcome."""
        if not self._closed:
            self._closed = True
            self._end_when_settled()

    async def events(self) -> AsyncIterator[FrameOutcome | StreamNotice]:
        """One outcome for each accepted frame, and the notices, until the queue is closed and nothing is owed."""
        while (event := await self._events.get()) is not None:
            yield event
            if isinstance(event, FrameOutcome):
                self._holds.pop(event.sequence).release()
                self._undelivered.release()

    async def cancel(self) -> None:
        """Stops all work: nobody waits for it any more."""
        tasks = list(self._work.values())
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for hold in self._holds.values():
                hold.release()

    def _drop(self, sequence: int) -> None:
        frame = self._not_started.pop(sequence)
        if task := self._work.pop(sequence, None):
            task.cancel()
        message = f"This frame made room for a newer one: {self._config.max_in_flight} were under way (DROP_OLDEST)."
        self._finish(sequence, frame, FrameDroppedError(message))

    async def _answer(self, sequence: int, frame: Frame) -> None:
        result: Inspection | Exception
        try:
            async with asyncio.timeout(self._config.frame_timeout_s):
                async with self._active:
                    del self._not_started[sequence]
                    result = await self._inspect(frame)
        except TimeoutError:
            message = f"No result within the stream's frame_timeout of {self._config.frame_timeout_s} s."
            result = DeadlineError(message)
        except Exception as error:  # noqa: BLE001 - the frame's outcome; the stream goes on
            result = error
        self._not_started.pop(sequence, None)
        del self._work[sequence]
        self._finish(sequence, frame, result)
        del result  # an error's frames are this one too: in a circle they would keep the bank in memory

    def _finish(self, sequence: int, frame: Frame, result: Inspection | Exception) -> None:
        outcome = FrameOutcome(frame.frame_id, frame.capture_time, sequence, result)
        if isinstance(result, FrameDroppedError):
            self._holds[sequence].release()  # it made room
        else:
            self._holds[sequence].resize(result.nbytes if isinstance(result, Inspection) else 0)
        if self._config.ordering is ResultOrdering.COMPLETION:
            self._deliver(outcome)
            return
        self._held[sequence] = outcome
        while (ready := self._held.pop(self._next_delivered, None)) is not None:
            self._next_delivered += 1
            self._deliver(ready)

    def _deliver(self, outcome: FrameOutcome) -> None:
        self._events.put_nowait(outcome)
        self._owed -= 1
        self._end_when_settled()

    def _end_when_settled(self) -> None:
        if self._closed and not self._owed:
            self._events.put_nowait(None)
