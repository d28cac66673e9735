"""One server that is watched: asked again and again, also while it is away."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from patchserve_client import (
    AsyncClient,
    DeadlineExceeded,
    PatchserveError,
    ReferenceInfo,
    ServerInfo,
    ServerStats,
    Unavailable,
)
from patchserve_client.top.activity import Activity, activity

_LEAST_TIMEOUT_S: Final = 2.0
_MOST_REFERENCES: Final = 200


class State(StrEnum):
    """What the last answer was."""

    SERVING = "serving"
    UNAVAILABLE = "unavailable"  # it answers, but starts or drains
    AWAY = "away"
    FAILED = "failed"  # it answers with an error, such as for a missing token


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of a server at a time. Without an answer, only the first four are set."""

    server: str
    time: datetime
    state: State
    message: str = ""  # why it is not serving
    info: ServerInfo | None = None
    stats: ServerStats | None = None
    activity: Activity | None = None  # None: one answer is not enough
    references: tuple[ReferenceInfo, ...] = ()


@dataclass(slots=True)
class WatchedServer:
    """Asks a server for its counts.

    Args:
        address: as it was typed.
        client: connected to it, when it is there.
        window: over how many answers rates are taken.
    """

    address: str
    client: AsyncClient
    window: int
    timeout_s: float | None = None  # of a call; None: long enough for a busy server
    _answers: deque[ServerStats] = field(default_factory=deque)

    async def sample(self, interval_s: float) -> Sample:
        """Ask once. Never raises an error of the server."""
        timeout_s = self.timeout_s or max(_LEAST_TIMEOUT_S, interval_s)
        try:
            stats = await self.client.server_stats(timeout_s=timeout_s)
            if self._answers and self._answers[-1].process_id != stats.process_id:
                self._answers.clear()
            info = await self.client.server_info(timeout_s=timeout_s)
            references = await self._references(timeout_s)
        except PatchserveError as error:
            self._answers.clear()
            return Sample(self.address, datetime.now(UTC), _state_of(error), " ".join(error.message.split()))
        self._answers.append(stats)
        while len(self._answers) > self.window + 1:
            self._answers.popleft()
        recent = activity(self._answers[0], stats) if len(self._answers) > 1 else None
        return Sample(
            self.address,
            datetime.now(UTC),
            State.SERVING,
            info=info,
            stats=stats,
            activity=recent,
            references=tuple(references),
        )

    async def _references(self, timeout_s: float) -> list[ReferenceInfo]:
        references: list[ReferenceInfo] = []
        async for reference in self.client.list_references(timeout_s=timeout_s):
            references.append(reference)
            if len(references) == _MOST_REFERENCES:
                break
        return references


def _state_of(error: PatchserveError) -> State:
    if isinstance(error, Unavailable) and error.reason:
        return State.UNAVAILABLE
    return State.AWAY if isinstance(error, (Unavailable, DeadlineExceeded)) else State.FAILED
