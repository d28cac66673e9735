"""The frames of one stream: exactly one outcome for each accepted frame, in bounded memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from patchserve_server.domain.call_events import FrameEnd, FrameResult, current_frame
from patchserve_server.domain.errors import FrameDroppedError, PatchserveError
from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.domain.inspection import Inspection
from patchserve_server.domain.stream import (
    CaptureTime,
    Frame,
    FrameOutcome,
    OverflowPolicy,
    ResultOrdering,
    StreamConfig,
    StreamNotice,
)
from patchserve_server.domain.work_events import reason_of
from patchserve_server.serving.admission import Admission, Capacity, Permit
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.time_limits import within

Inspect = Callable[[Frame], Awaitable[Inspection]]


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Entry:
    """A frame from its acceptance until its outcome is sent. Implements `domain.call_events.FrameInfo`."""

    sequence: int
    frame_id: str
    capture_time: CaptureTime | None
    permit: Permit
    accepted_at_s: float
    inspection: asyncio.Task[None] | None = None  # None once there is an outcome
    is_started: bool = False  # a frame that has started is not dropped
    outcome: FrameOutcome | None = None


class FrameQueue:
    """Inspects the frames of one stream and returns their outcomes. Use it in a `with` statement.

    Under BLOCK, `put` waits while `max_in_flight` outcomes are not sent yet. Under DROP_OLDEST, `put` drops the oldest
    frame that has not started. A dropped frame has an outcome too. So `put` also waits if very many outcomes are not
    sent, which only happens if the caller does not read. At most `max_active` frames are inspected at a time; the
    others can be dropped.

    A frame holds a permit for its image from its acceptance until its outcome is sent. If no permit is available, `put`
    waits too; under DROP_OLDEST, it first drops frames of this stream that have not started.
    """

    def __init__(
        self,
        config: StreamConfig,
        inspect: Inspect,
        *,
        max_active: int,
        admission: Admission,
        flow: FlowKey,
        events: Events = NOBODY,
    ) -> None:
        self._config = config
        self._inspect = inspect
        self._admission = admission
        self._flow = flow
        self._drops = config.overflow is OverflowPolicy.DROP_OLDEST
        self._inspection_slots = asyncio.Semaphore(min(max_active, config.max_in_flight))
        self._unsent_slots = asyncio.Semaphore(16 + 8 * config.max_in_flight if self._drops else config.max_in_flight)
        self._entries: dict[int, _Entry] = {}  # by sequence, in the order of arrival
        self._next_sequence = 0
        self._next_delivered = 0  # a sequence number, used for INPUT order
        self._undelivered = 0
        self._events: asyncio.Queue[FrameOutcome | StreamNotice | None] = asyncio.Queue()
        self._closed = False
        self._told = events

    async def put(self, frame: Frame) -> None:
        """Accepts a frame as soon as there is capacity for it and its outcome."""
        await self._unsent_slots.acquire()
        permit = await self._acquire(frame)
        entry = _Entry(self._next_sequence, frame.frame_id, frame.capture_time, permit, time.perf_counter())
        is_full = sum(other.inspection is not None for other in self._entries.values()) >= self._config.max_in_flight
        self._entries[entry.sequence] = entry
        self._next_sequence += 1
        self._undelivered += 1
        self._told.frame_began(entry)
        if self._drops and is_full:
            self._drop_oldest()
        if entry.outcome is None:
            entry.inspection = asyncio.create_task(self._answer(entry, frame))

    async def _acquire(self, frame: Frame) -> Permit:
        capacity = Capacity(1, len(frame.image))
        if self._drops:
            while self._oldest_waiting() is not None:
                if (permit := self._admission.try_acquire_for_stream(self._flow, capacity)) is not None:
                    return permit
                self._drop_oldest()
        return await self._admission.acquire_for_stream(self._flow, capacity)

    def notify(self, notice: StreamNotice) -> None:
        """Adds a notice to the events."""
        self._events.put_nowait(notice)

    def close(self) -> None:
        """Accepts no more frames; `events` ends after the last outcome."""
        if not self._closed:
            self._closed = True
            self._end_if_all_delivered()

    async def events(self) -> AsyncIterator[FrameOutcome | StreamNotice]:
        """The outcomes of all accepted frames, and the notices, until the queue is closed and all are delivered."""
        while (event := await self._events.get()) is not None:
            yield event
            if isinstance(event, FrameOutcome):
                self._entries.pop(event.sequence).permit.release()
                self._unsent_slots.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stops all work and releases all permits. It awaits nothing, so no cancellation can interrupt it."""
        for entry in self._entries.values():
            if entry.inspection is not None:
                entry.inspection.cancel()
                entry.inspection = None  # the traceback of its cancellation refers to the entry: a cycle
            if entry.outcome is None:
                self._tell_end(entry, FrameResult.ABANDONED, "")
            entry.permit.release()
        self._entries.clear()

    def _oldest_waiting(self) -> _Entry | None:
        waiting = (entry for entry in self._entries.values() if not entry.is_started and entry.outcome is None)
        return next(waiting, None)

    def _drop_oldest(self) -> None:
        if (entry := self._oldest_waiting()) is None:
            return
        if entry.inspection is not None:
            entry.inspection.cancel()
        entry.permit.release()
        message = f"Dropped in favor of a newer frame: {self._config.max_in_flight} were in flight (DROP_OLDEST)."
        self._finish(entry, FrameDroppedError(message))

    async def _answer(self, entry: _Entry, frame: Frame) -> None:
        result: Inspection | Exception
        if self._told.is_heard:
            current_frame.set(entry)  # in the frame's own task
        try:
            limit_s = self._config.frame_timeout_s
            async with (
                within(limit_s, f"No result within the stream's frame_timeout of {limit_s} s."),
                self._inspection_slots,
            ):
                entry.is_started = True
                result = await self._inspect(frame)
        except PatchserveError as error:
            result = error.copy()  # without its traceback, which holds the image
        except Exception as error:  # noqa: BLE001 - a bug: its traceback is logged, and the stream continues
            result = error
        entry.permit.resize(result.nbytes if isinstance(result, Inspection) else 0)
        self._finish(entry, result)
        del entry, frame, result  # the traceback of a bug refers to this frame: a cycle

    def _finish(self, entry: _Entry, result: Inspection | Exception) -> None:
        entry.inspection = None
        entry.outcome = FrameOutcome(entry.frame_id, entry.capture_time, entry.sequence, result)
        if isinstance(result, Inspection):
            self._tell_end(entry, FrameResult.INSPECTED, "")
        else:
            was_dropped = isinstance(result, FrameDroppedError)
            self._tell_end(entry, FrameResult.DROPPED if was_dropped else FrameResult.FAILED, reason_of(result))
        if self._config.ordering is ResultOrdering.COMPLETION:
            self._deliver(entry.outcome)
            return
        while (next_entry := self._entries.get(self._next_delivered)) is not None and next_entry.outcome is not None:
            self._next_delivered += 1
            self._deliver(next_entry.outcome)

    def _tell_end(self, entry: _Entry, result: FrameResult, reason: str) -> None:
        if self._told.is_heard:
            self._told.frame_ended(entry, FrameEnd(result, reason, time.perf_counter() - entry.accepted_at_s))

    def _deliver(self, outcome: FrameOutcome) -> None:
        self._events.put_nowait(outcome)
        self._undelivered -= 1
        self._end_if_all_delivered()

    def _end_if_all_delivered(self) -> None:
        if self._closed and not self._undelivered:
            self._events.put_nowait(None)
