"""What is held of the capacity of an admission, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from patchserve_server.serving.capacity import NOTHING, Capacity
from patchserve_server.serving.fairness import FlowKey

IsWithinShare = Callable[[Capacity, Capacity, Capacity], bool]
"""Whether a client may have this much more, if its streams and its single calls hold this much."""


@dataclass(frozen=True, slots=True)
class WaitingProcess:
    """A process in which a stream of the client waits whose turn it is."""

    number: int
    client: str | None  # None: another process, which knows the client's name
    capacity: Capacity  # that the stream waits for


class Ledger(Protocol):
    """Counts of one admission. Several processes may have a part in it; clients then take turns over all of them."""

    is_shared: bool
    """Whether other processes have a part in it."""

    @property
    def others_wait(self) -> bool:
        """Whether streams wait in other processes."""

    def exclusive(self) -> AbstractContextManager[None]:
        """No other process changes it until the block ends. Blocks may be nested."""

    def held(self, *, streams: bool) -> Capacity:
        """What all streams hold, or all single calls."""

    def held_by(self, client: str, *, streams: bool) -> Capacity:
        """The same of one client."""

    def add(self, flow: FlowKey, change: Capacity) -> None:
        """Counts a change of what this process holds."""

    def set_waiting(self, client: str, capacity: Capacity | None) -> None:
        """Tells other processes what the first waiting stream of a client needs here; None: none waits."""

    def first(self, is_within_share: IsWithinShare) -> WaitingProcess | None:
        """Where the stream waits whose turn it is: of the client that was served longest ago, within its share."""

    def served(self, client: str) -> None:
        """A stream of this client got what it waited for: its turn is over."""

    def wake(self, process: WaitingProcess) -> None:
        """Lets another process grant what waits there."""


class LocalLedger:
    """The ledger of a process that is alone."""

    is_shared = False
    others_wait = False

    def __init__(self) -> None:
        self._held = {False: NOTHING, True: NOTHING}  # key: whether by streams
        self._held_by_client: dict[tuple[str, bool], Capacity] = {}

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()

    def held(self, *, streams: bool) -> Capacity:
        return self._held[streams]

    def held_by(self, client: str, *, streams: bool) -> Capacity:
        return self._held_by_client.get((client, streams), NOTHING)

    def add(self, flow: FlowKey, change: Capacity) -> None:
        key = (flow.client, flow.is_stream)
        self._held[flow.is_stream] += change
        self._held_by_client[key] = self._held_by_client.get(key, NOTHING) + change
        if self._held_by_client[key] == NOTHING:
            del self._held_by_client[key]

    def set_waiting(self, client: str, capacity: Capacity | None) -> None: ...

    def first(self, is_within_share: IsWithinShare) -> WaitingProcess | None: ...

    def served(self, client: str) -> None: ...

    def wake(self, process: WaitingProcess) -> None: ...
