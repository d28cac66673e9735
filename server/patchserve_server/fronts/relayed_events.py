"""The wall is in one front. The others tell it what they inspect, through the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from patchserve_server.domain.events import Events, ImageInspected, InspectionFailed, Origin
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import EncodedOverlay, Inspection
from patchserve_server.domain.reference import Calibration
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.values import body_of, from_json

_NOT_HERE: Final = SentImage(b"")
_TOO_LARGE: Final = 2**62  # so that the wall does not keep the image, which it does not have

Tell = Callable[[Head, Body], None]


@dataclass(frozen=True, slots=True)
class _Inspected:
    origin: Origin
    inspection: Inspection  # without its overlay and its score map
    calibration: Calibration


class RelayedEvents(Events):
    """Listens in a front that does not show the wall, and passes on verdicts and failures, no pictures."""

    def __init__(self) -> None:
        self.tell: Tell | None = None  # None: the engine is lost

    def inspected(self, event: ImageInspected) -> None:
        inspection = replace(event.inspection, overlay=None, score_map=None)
        self._happened("inspected", _Inspected(event.origin, inspection, event.calibration))

    def failed(self, event: InspectionFailed) -> None:
        self._happened("failed", event)

    def refused(self) -> None:
        self._happened("refused", None)

    def _happened(self, what: str, event: object) -> None:
        if self.tell is not None:
            self.tell({"tell": "happened", "what": what}, body_of(event))


def pass_on(message: Head, body: bytes, events: Events) -> None:
    """What another front has told, for the wall of this one. Other messages are left alone."""
    if message["tell"] != "happened":
        return
    match message["what"]:
        case "inspected":
            told = from_json(_Inspected, json.loads(body))
            event = ImageInspected(
                told.origin, _NOT_HERE, told.inspection, told.calibration, _TOO_LARGE, _no_overlay, _no_thumbnail
            )
            events.inspected(event)
        case "failed":
            events.failed(from_json(InspectionFailed, json.loads(body)))
        case "refused":
            events.refused()


def _no_overlay(_: SentImage) -> EncodedOverlay:
    raise LookupError("The image is in another front.")


def _no_thumbnail() -> bytes:
    return b""
