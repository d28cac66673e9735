"""What happened, as `serving` tells it to whoever listens. Nobody has to listen; then it costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import EncodedOverlay, Inspection
from patchserve_server.domain.reference import Calibration, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId


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


class Events(Protocol):
    """Hears what happened. Called on the event loop, in the middle of a call: it returns at once and raises nothing."""

    def inspected(self, event: ImageInspected) -> None: ...

    def failed(self, event: InspectionFailed) -> None: ...

    def refused(self) -> None:
        """There was no capacity for an image, so it was not read."""

    def reference_changed(self, reference_id: ReferenceId, reference: ReferenceInfo | None) -> None:
        """The reference has this new revision; None: it was deleted."""
