"""Frames of a stream and what becomes of them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from patchserve_server.domain.inspection import Inspection, OutputOptions


class OverflowPolicy(enum.Enum):
    """What happens to a frame that comes while max_in_flight frames are under way."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"


class ResultOrdering(enum.Enum):
    INPUT = "input"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Settings of one stream, checked and with the defaults filled in."""

    reference_id: str
    expected_revision: str  # empty: the present one
    output: OutputOptions
    max_in_flight: int
    overflow: OverflowPolicy = OverflowPolicy.BLOCK
    ordering: ResultOrdering = ResultOrdering.INPUT
    frame_timeout_s: float | None = None


CaptureTime: TypeAlias = tuple[int, int]
"""The caller's own clock, returned as it came and never interpreted: seconds since the epoch, nanoseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One encoded image of a stream."""

    frame_id: str
    capture_time: CaptureTime | None  # None: unknown
    image: bytes


@dataclass(frozen=True, slots=True, eq=False)
class FrameOutcome:
    """What became of one accepted frame: an inspection, or the error that stands in its place.

    An error that is no PatchserveError is a fault of ours; rpc/status.py says so to the caller without its details.
    """

    frame_id: str
    capture_time: CaptureTime | None
    sequence: int
    result: Inspection | Exception


@dataclass(frozen=True, slots=True)
class StreamReady:
    """The stream is open, with what was granted."""

    reference_id: str
    reference_revision: str
    max_in_flight: int


class NoticeKind(enum.Enum):
    DRAINING = "draining"
    REFERENCE_CHANGED = "reference_changed"


@dataclass(frozen=True, slots=True)
class StreamNotice:
    """Something a caller should know that is no result."""

    kind: NoticeKind
    message: str


StreamEvent = StreamReady | FrameOutcome | StreamNotice
