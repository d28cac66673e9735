"""What happened, as the faces and `serving` tell it to whoever listens. Nobody has to listen; then it costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.call_events import CallEnd, CallInfo, FrameEnd, FrameInfo
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import EncodedOverlay, Inspection
from patchserve_server.domain.reference import Calibration, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import (
    BatchScored,
    ImageProcessed,
    LoadEnded,
    ReferenceOpened,
    Stage,
    StoreUsed,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an image comes from."""

    client: str  # such as "token belt-3"
    name: str  # the caller's name for the image: a file name, a frame id; may be empty
    is_frame: bool  # of a stream


@dataclass(frozen=True, slots=True, eq=False)
class ImageInspected:
    """An image was inspected. What it draws is drawn only when it is called, which blocks."""

    origin: Origin
    image: SentImage  # with the white level that it was read with
    inspection: Inspection
    calibration: Calibration  # of the reference, at sensitivity 1
    map_bytes: int  # of the anomaly map that draw_overlay and draw_thumbnail hold
    draw_overlay: Callable[[SentImage], EncodedOverlay]  # of the image, for the operator, whatever the caller requested
    draw_thumbnail: Callable[[], bytes]  # JPEG

    @property
    def nbytes(self) -> int:
        """The memory of the image and of what the inspection holds."""
        return self.image.nbytes + self.inspection.nbytes


@dataclass(frozen=True, slots=True)
class InspectionFailed:
    """An image that was admitted could not be inspected."""

    origin: Origin
    reference_id: ReferenceId
    reason: str  # of the error, such as UNDECODABLE_IMAGE
    message: str


class Events:
    """Hears what happened; this one ignores it. A listener overrides what it wants to hear.

    Called on the event loop, in the task of the call or the frame, unless a method says otherwise: it returns at once
    and raises nothing. Whatever begins also ends, exactly once.
    """

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens. If not, events need not be made."""
        return True

    def call_began(self, call: CallInfo) -> None:
        """A face has begun to answer a call. It is not authorized yet."""

    def call_ended(self, call: CallInfo, end: CallEnd) -> None:
        """Its outcome is known; perhaps it is not sent yet."""

    def frame_began(self, frame: FrameInfo) -> None:
        """A frame of a stream was accepted. Told in the task that reads the frames of the stream."""

    def frame_ended(self, frame: FrameInfo, end: FrameEnd) -> None:
        """It has an outcome, or will never have one. Told in any task of its call."""

    def processed(self, event: ImageProcessed) -> None:
        """An image has left the queues, whatever became of it. Told before `inspected` and `failed`."""

    def inspected(self, event: ImageInspected) -> None: ...

    def failed(self, event: InspectionFailed) -> None: ...

    def refused(self) -> None:
        """There was no capacity for an image, so it was not read."""

    def device_fell_back(self, stage: Stage) -> None:
        """The CPU did this stage of an image, because the device could not."""

    def batch_scored(self, event: BatchScored) -> None:
        """Told in a task of its own: a batch has images of several calls."""

    def load_began(self, reference_id: ReferenceId) -> None: ...

    def load_ended(self, event: LoadEnded) -> None: ...

    def reference_opened(self, event: ReferenceOpened) -> None:
        """Told in a task of its own: several calls may wait for it."""

    def reference_changed(self, reference_id: ReferenceId, reference: ReferenceInfo | None) -> None:
        """The reference has this new revision; None: it was deleted."""

    def store_used(self, event: StoreUsed) -> None:
        """Told in the thread that has used the store."""


class _Nobody(Events):
    @property
    def is_heard(self) -> bool:
        return False


NOBODY: Final[Events] = _Nobody()
"""Nobody listens."""
