"""Sends images at given times, over several connections, and records when their results arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Final, Protocol

from patchserve_client import AsyncClient, Frame, PatchserveError
from patchserve_client._base import OpenChannel
from patchserve_client._calls import Call
from patchserve_client.bench.step import Recorder

_POLL_S: Final = 0.1  # how soon Ctrl-C is noticed
_LAG_INTERVAL_S: Final = 0.01


class Connection(AsyncClient):
    """A client that shares its connection with no other one."""

    def _open(self) -> OpenChannel:
        self._connection = self._connection.alone()
        return super()._open()

    async def send(self, call: Call[Any], timeout_s: float) -> None:
        """Make a call whose request is ready."""
        await self._run(call, timeout_s)


class Load(Protocol):
    """A way to send images."""

    @property
    def is_paced_by_server(self) -> bool:
        """Whether images are sent late because the server reads slowly."""
        ...

    async def run(self, times_s: Iterable[float], recorder: Recorder, end: Event) -> None:
        """Send an image at each of these times, and wait for all results; stop if `end` is set."""


@dataclass(frozen=True, slots=True)
class UnaryLoad:
    """A call for each image."""

    connections: Sequence[Connection]
    calls: Sequence[Call[Any]]  # one for each image, in turn
    timeout_s: float
    max_outstanding: int
    is_paced_by_server: bool = False

    async def run(self, times_s: Iterable[float], recorder: Recorder, end: Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, time_s in enumerate(times_s):
                intended_s = recorder.started_s + time_s
                if not await waited_until(intended_s, end):
                    return
                if recorder.outstanding >= self.max_outstanding:
                    recorder.not_sent()
                    return
                recorder.sent(intended_s)
                tasks.create_task(self._send(number, intended_s, recorder))

    async def _send(self, number: int, intended_s: float, recorder: Recorder) -> None:
        connection = self.connections[number % len(self.connections)]
        try:
            await connection.send(self.calls[number % len(self.calls)], self.timeout_s)
        except PatchserveError as error:
            recorder.failed(error.reason or error.code)
        else:
            recorder.completed(intended_s)


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """A stream on each connection, whose frames are sent in turn."""

    connections: Sequence[Connection]
    images: Sequence[bytes]
    reference_id: str
    overlay: bool
    timeout_s: float
    is_paced_by_server: bool = True

    async def run(self, times_s: Iterable[float], recorder: Recorder, end: Event) -> None:
        times = list(times_s)
        async with asyncio.TaskGroup() as tasks:
            for place, connection in enumerate(self.connections):
                own = times[place :: len(self.connections)]
                tasks.create_task(self._stream(connection, own, recorder, end))

    async def _stream(self, connection: Connection, times_s: list[float], recorder: Recorder, end: Event) -> None:
        intended_s: dict[str, float] = {}  # of the frames without a result

        async def frames() -> AsyncIterator[Frame]:
            for number, time_s in enumerate(times_s):
                at_s = recorder.started_s + time_s
                if not await waited_until(at_s, end):
                    return
                if time.monotonic() - at_s > self.timeout_s:  # the server reads slower than frames arrive
                    recorder.not_sent()
                    return
                recorder.sent(at_s)
                intended_s[str(number)] = at_s
                yield Frame(self.images[number % len(self.images)], str(number))

        try:
            results = connection.infer_stream(
                frames(),
                self.reference_id,
                timeout_s=self.timeout_s,
                ordering="completion",
                overlay=self.overlay,
                max_regions=0,
            )
            async for result in results:
                at_s = intended_s.pop(result.frame_id)
                if result.error is None:
                    recorder.completed(at_s)
                else:
                    recorder.failed(result.error.reason or result.error.code)
        except PatchserveError as error:
            for _ in intended_s:
                recorder.failed(error.reason or error.code)
            recorder.not_sent()


async def waited_until(time_s: float, end: Event) -> bool:
    """Sleep until a time of time.monotonic(). False: `end` was set."""
    while not end.is_set():
        if (remaining_s := time_s - time.monotonic()) <= 0:
            return True
        await asyncio.sleep(min(remaining_s, _POLL_S))
    return False


async def record_lag(recorder: Recorder) -> None:
    """Record how late the event loop of this program is, until it is cancelled."""
    while True:
        due_s = time.monotonic() + _LAG_INTERVAL_S
        await asyncio.sleep(_LAG_INTERVAL_S)
        recorder.lagged(max(0.0, time.monotonic() - due_s))
