"""Simulated time. Code that waits is a greenlet that comes back later, so a thousand servers need one thread.

All of them run the real, blocking code. Whoever waits gives way to the one whose time comes next.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")
R = TypeVar("R")

READERS: Final = 32  # as `store.shared.store` has them
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Timeline:
    """The only clock of a simulation."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, greenlet]] = []
        self._number = 0
        self._main = getcurrent()

    def monotonic_s(self) -> float:
        return self.now_s

    def utc_now(self) -> datetime:
        return _BEGIN + timedelta(seconds=self.now_s)

    def sleep(self, seconds: float) -> None:
        """Comes back when the time has passed."""
        self._come_back(getcurrent(), seconds)
        self._main.switch()

    def begin(self, run: Callable[[], None], *, after_s: float = 0.0) -> None:
        """Runs this beside everything else."""
        self._come_back(greenlet(run, self._main), after_s)

    def each(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """The results in order, of several at the same time, as a server's pool of readers has them."""
        waiting, todo = getcurrent(), deque(enumerate(items))
        results: dict[int, R | BaseException] = {}
        workers = min(READERS, len(todo))
        left = [workers]

        def work() -> None:
            while todo:
                number, item = todo.popleft()
                try:
                    results[number] = function(item)
                except Exception as error:  # noqa: BLE001 - the caller gets it
                    results[number] = error
            left[0] -= 1
            if not left[0]:
                self._come_back(waiting, 0.0)

        for _ in range(workers):
            self.begin(work)
        if workers:
            self._main.switch()
        for number in range(len(results)):
            result = results[number]
            if isinstance(result, BaseException):
                raise result
            yield result

    def run_until(self, end_s: float) -> None:
        """Lets everything happen that happens until then."""
        while self._events and self._events[0][0] <= end_s:
            self.now_s, _, waiting = heapq.heappop(self._events)
            waiting.switch()
        self.now_s = end_s

    def _come_back(self, waiting: greenlet, after_s: float) -> None:
        self._number += 1  # of equal times, the first comes first
        heapq.heappush(self._events, (self.now_s + after_s, self._number, waiting))
