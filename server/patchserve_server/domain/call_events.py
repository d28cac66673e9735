"""What listeners hear of calls and of the frames of streams, and which call the code that runs now belongs to."""

from __future__ import annotations

import enum
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Protocol

from patchserve_server.domain.reference_id import ReferenceId

CALL_LOG: Final = "patchserve_server.calls"
"""The logger of access lines: one for each call."""
OK_LOG: Final = f"{CALL_LOG}.ok"
"""That of calls which succeed: most lines, and so it has a level of its own."""
FRAME_LOG: Final = f"{CALL_LOG}.frames"
"""That of some frames of streams."""


class Face(enum.StrEnum):
    """A way into the server."""

    GRPC = "grpc"
    HTTP = "http"


class CallInfo(Protocol):
    """What is known of a call while it is in progress. The same object from its begin to its end."""

    request_id: str
    face: Face
    method_name: str  # such as Infer; one of a closed set, never a caller's text
    service: str  # of gRPC, such as patchserve.v1.PatchCoreService; empty over HTTP
    is_stream: bool  # images in and results out until one side ends it
    reference_id: ReferenceId | None  # as soon as it is known, see `note_reference`
    trace_parent: str  # its span as `traceparent` names it, or that of its caller; empty: there is none

    @property
    def address(self) -> str:
        """Of the peer, without its port."""

    @property
    def client(self) -> str:
        """Who calls, such as "token belt-3"; until the token is verified, the certificate's name or the address."""

    def header(self, name: str) -> str:
        """A value of the caller's metadata (over HTTP, of its headers), name in lower case; empty: it sent none."""


@dataclass(eq=False)
class RelayedCall:
    """A call that another process of the server got, and for which this one works. Implements CallInfo."""

    request_id: str
    face: Face
    method_name: str
    client: str
    reference_id: ReferenceId | None
    trace_parent: str
    service: str = ""
    is_stream: bool = False
    address: str = ""

    def header(self, name: str) -> str:
        return self.trace_parent if name == "traceparent" else ""


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended."""

    code: str  # of google.rpc.Code: "OK", "NOT_FOUND"; CANCELLED: the caller left
    reason: str  # of the error, such as REFERENCE_NOT_FOUND; empty: none
    duration_s: float


class FrameInfo(Protocol):
    """A frame of a stream that was accepted. The same object from its begin to its end."""

    @property
    def sequence(self) -> int:
        """Of the frame in its stream, from 0."""

    @property
    def frame_id(self) -> str:
        """The caller's text."""


class FrameResult(enum.StrEnum):
    """What became of a frame."""

    INSPECTED = "inspected"
    FAILED = "failed"
    DROPPED = "dropped"  # in favor of a newer one
    ABANDONED = "abandoned"  # the stream ended before


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """How a frame ended."""

    result: FrameResult
    reason: str  # of the error; empty: none
    duration_s: float


current_call: Final[ContextVar[CallInfo | None]] = ContextVar("current_call", default=None)
"""The call that the code which runs now works for, in every task of the call and in the threads that work for it."""

current_frame: Final[ContextVar[FrameInfo | None]] = ContextVar("current_frame", default=None)
"""The frame that the code which runs now works for, in the task of the frame."""

Work = CallInfo | FrameInfo | None
"""What an image is inspected for."""


def current_work() -> Work:
    """The frame that the code which runs now works for, or else the call."""
    return current_frame.get() or current_call.get()


def note_reference(reference_id: ReferenceId) -> None:
    """Tells whoever hears of the current call which reference it names."""
    if (call := current_call.get()) is not None:
        call.reference_id = reference_id
