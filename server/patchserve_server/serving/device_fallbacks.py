"""Images of which the CPU does what the device could not."""

from __future__ import annotations

import logging
from contextvars import Context
from typing import Final

from patchserve_server.domain.errors import EngineLostError
from patchserve_server.domain.events import Events
from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.domain.words import counted
from patchserve_server.domain.work_events import Stage
from patchserve_server.serving.log_interval import LogInterval

_TELL_EVERY_S: Final = 60.0

_log = logging.getLogger(__name__)


class DeviceFallbacks:
    """Tells the operator, at most once a minute: no caller sees it, but it costs time."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._interval = LogInterval(_TELL_EVERY_S)

    def add(self, stage: Stage, error: DeviceCodecError | EngineLostError) -> None:
        """The CPU does this stage of one more."""
        self._events.device_fell_back(stage)
        if (due := self._interval.count()) is not None:
            # Outside of this call: it is about many.
            Context().run(
                _log.warning,
                "The device could not decode or draw %s, so the CPU did: %s",
                counted(due[0], "JPEG"),
                error,
            )
