"""Streams: their settings, frames and outcomes."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TypeAlias

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.inspection import Inspection, OutputOptions
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.white_level import check_white_level


class OverflowPolicy(enum.Enum):
    """What happens to a frame that arrives while max_in_flight frames are being processed."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"


class ResultOrdering(enum.Enum):
    INPUT = "input"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Settings of one stream, with the defaults filled in.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    reference_id: ReferenceId
    expected_revision: Revision | None  # None: the current one
    output: OutputOptions
    max_in_flight: int
    overflow: OverflowPolicy = OverflowPolicy.BLOCK
    ordering: ResultOrdering = ResultOrdering.INPUT
    frame_timeout_s: float | None = None  # None: no limit
    white_level: int | None = None  # of all frames; None: that of the reference

    def __post_init__(self) -> None:
        check_white_level(self.white_level)
        if self.max_in_flight < 1:
            raise InvalidInputError("max_in_flight", "max_in_flight must be 1 or more.")
        if self.frame_timeout_s is not None and not 0 < self.frame_timeout_s < math.inf:
            raise InvalidInputError("frame_timeout", "frame_timeout must be above 0; leave it out for no limit.")


CaptureTime: TypeAlias = tuple[int, int]
"""The caller's own clock, returned unchanged and never interpreted: seconds since the epoch, nanoseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One encoded image of a stream."""

    frame_id: str
    capture_time: CaptureTime | None  # None: unknown
    image: bytes


@dataclass(frozen=True, slots=True, eq=False)
class FrameOutcome:
    """The inspection of one accepted frame, or its error.

    An error that is not a PatchserveError is a bug; contract/status.py reports it to the caller without its details.
    """

    frame_id: str
    capture_time: CaptureTime | None
    sequence: int
    result: Inspection | Exception


@dataclass(frozen=True, slots=True)
class StreamReady:
    """The stream is open; these are the values in effect."""

    reference_id: ReferenceId
    reference_revision: Revision
    max_in_flight: int


class NoticeKind(enum.Enum):
    DRAINING = "draining"
    REFERENCE_CHANGED = "reference_changed"


@dataclass(frozen=True, slots=True)
class StreamNotice:
    """A message to the caller that belongs to no frame."""

    kind: NoticeKind
    message: str


StreamEvent = StreamReady | FrameOutcome | StreamNotice
