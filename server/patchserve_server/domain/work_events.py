"""What listeners hear of the work inside the server: images, batches, loads, references, the store.

Times are those of time.perf_counter in the process that tells them.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from patchserve_server.domain.call_events import Work
from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.reference_id import ReferenceId


class Stage(enum.StrEnum):
    """What is done to an image, in this order."""

    DECODE = "decode"  # or check it, and let the device decode it with its batch
    EMBED = "embed"  # with its batch
    SEARCH = "search"  # with its batch, until its own result
    RENDER = "render"  # verdict, regions, overlay; with the wait for the device, if that draws and encodes it
    ENCODE = "encode"  # the overlay, and the response


class Wait(enum.StrEnum):
    """What an image waits for."""

    TURN = "turn"
    THREAD = "thread"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Step:
    """A stage or a wait of one image."""

    what: Stage | Wait
    started_at_s: float
    duration_s: float


class StepLog:
    """The steps of one image, one after the other. One thread at a time writes it."""

    __slots__ = ("_since_s", "_what", "steps")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._what: Stage | Wait | None = None
        self._since_s = 0.0

    def enter(self, what: Stage | Wait | None) -> float:
        """Ends the last step and begins this one, or goes on with it; returns the time. None: what follows is none."""
        now_s = time.perf_counter()
        if what is self._what:
            return now_s
        if self._what is not None:
            self.steps.append(Step(self._what, self._since_s, now_s - self._since_s))
        self._what, self._since_s = what, now_s
        return now_s

    def end_batch(self, waited_s: float, embed_s: float, search_s: float, *, decode_s: float = 0.0) -> None:
        """Ends the wait for a batch: it was these steps. `decode_s`: by the device; 0: it has not decoded."""
        start_s = self._since_s
        decoding = ((Stage.DECODE, decode_s),) if decode_s else ()
        for what, duration_s in ((Wait.BATCH, waited_s), *decoding, (Stage.EMBED, embed_s), (Stage.SEARCH, search_s)):
            self.steps.append(Step(what, start_s, duration_s))
            start_s += duration_s
        self._what = None

    @property
    def began_at_s(self) -> float:
        """The start of the first step."""
        return self.steps[0].started_at_s if self.steps else self._since_s

    @property
    def waited_s(self) -> float:
        """All waits together that have ended."""
        return sum(step.duration_s for step in self.steps if isinstance(step.what, Wait))

    def took_s(self, stage: Stage) -> float:
        """A stage, as far as it has ended; 0: it has not begun."""
        return sum(step.duration_s for step in self.steps if step.what is stage)


@dataclass(frozen=True, slots=True)
class ImageProcessed:
    """An image has left the server's queues: it is inspected, has failed, or its caller has left."""

    reference_id: ReferenceId
    is_frame: bool  # of a stream
    steps: tuple[Step, ...]  # those that were begun


@dataclass(frozen=True, slots=True, eq=False)
class BatchScored:
    """Images were scored together."""

    works: tuple[Work, ...]  # of each image; None: of another process
    reference_count: int
    started_at_s: float
    duration_s: float
    failed: bool  # nothing was scored

    @property
    def image_count(self) -> int:
        return len(self.works)


@dataclass(frozen=True, slots=True)
class LoadStep:
    """A stage of a load."""

    stage: LoadStage
    started_at_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class LoadEnded:
    """A load ended. It may have waited for a thread, as long as others were fitted."""

    reference_id: ReferenceId
    appends: bool
    reason: str  # of the error; empty: none; CANCELLED: the caller left
    started_at_s: float
    duration_s: float
    waited_s: float
    steps: tuple[LoadStep, ...]


@dataclass(frozen=True, slots=True)
class ReferenceOpened:
    """A stored reference was read and opened, or could not be."""

    reference_id: ReferenceId
    reason: str  # of the error; empty: none
    started_at_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class StoreUsed:
    """An operation of the store ended."""

    operation: str  # the method of `ports.ReferenceStore`
    reference_id: ReferenceId | None  # None: it belongs to none
    reason: str  # of the error; empty: none
    started_at_s: float
    duration_s: float


@contextmanager
def told(tell: Callable[[str, float, float], None]) -> Iterator[None]:
    """Tells how the block ended: the reason of its error (empty: none), when it started, how long it took."""
    started_at_s, reason = time.perf_counter(), ""
    try:
        yield
    except BaseException as error:
        reason = reason_of(error)
        raise
    finally:
        tell(reason, started_at_s, time.perf_counter() - started_at_s)


def reason_of(error: BaseException) -> str:
    """The reason of an error; INTERNAL: a bug, CANCELLED: nobody needs the work any more."""
    if isinstance(error, PatchserveError):
        return error.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"
