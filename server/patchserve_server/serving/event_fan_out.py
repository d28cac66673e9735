"""Several listeners hear of what happens as one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from patchserve_server.domain.call_events import CallEnd, CallInfo, FrameEnd, FrameInfo
from patchserve_server.domain.events import Events, ImageInspected, InspectionFailed
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import (
    BatchScored,
    ImageProcessed,
    LoadEnded,
    ReferenceOpened,
    Stage,
    StoreUsed,
)

T = TypeVar("T")

_log: Final = logging.getLogger(__name__)


class EventFanOut(Events):
    """Tells every listener what happens, in the order in which they were added. One that fails disturbs nobody."""

    def __init__(self) -> None:
        self._listeners: tuple[Events, ...] = ()

    def add(self, listener: Events) -> None:
        """Tells this listener too, from now on."""
        self._listeners = (*self._listeners, listener)

    @property
    def is_heard(self) -> bool:
        return bool(self._listeners)

    def call_began(self, call: CallInfo) -> None:
        self._tell(lambda listener: listener.call_began(call))

    def call_ended(self, call: CallInfo, end: CallEnd) -> None:
        self._tell(lambda listener: listener.call_ended(call, end))

    def frame_began(self, frame: FrameInfo) -> None:
        self._tell(lambda listener: listener.frame_began(frame))

    def frame_ended(self, frame: FrameInfo, end: FrameEnd) -> None:
        self._tell(lambda listener: listener.frame_ended(frame, end))

    def processed(self, event: ImageProcessed) -> None:
        self._tell(lambda listener: listener.processed(event))

    def inspected(self, event: ImageInspected) -> None:
        self._tell(lambda listener: listener.inspected(event))

    def failed(self, event: InspectionFailed) -> None:
        self._tell(lambda listener: listener.failed(event))

    def refused(self) -> None:
        self._tell(lambda listener: listener.refused())

    def device_fell_back(self, stage: Stage) -> None:
        self._tell(lambda listener: listener.device_fell_back(stage))

    def batch_scored(self, event: BatchScored) -> None:
        self._tell(lambda listener: listener.batch_scored(event))

    def load_began(self, reference_id: ReferenceId) -> None:
        self._tell(lambda listener: listener.load_began(reference_id))

    def load_ended(self, event: LoadEnded) -> None:
        self._tell(lambda listener: listener.load_ended(event))

    def reference_opened(self, event: ReferenceOpened) -> None:
        self._tell(lambda listener: listener.reference_opened(event))

    def reference_changed(self, reference_id: ReferenceId, reference: ReferenceInfo | None) -> None:
        self._tell(lambda listener: listener.reference_changed(reference_id, reference))

    def store_used(self, event: StoreUsed) -> None:
        self._tell(lambda listener: listener.store_used(event))

    def _tell(self, tell: Callable[[Events], None]) -> None:
        for listener in self._listeners:
            try:
                tell(listener)
            except Exception:  # noqa: BLE001 - a fault of one that watches is none of the call
                _log.exception("%s has failed to hear of something", type(listener).__name__)
