"""Lines in the log for some frames of a stream."""

from __future__ import annotations

import logging

from patchserve_server.domain.call_events import FRAME_LOG, FrameEnd, FrameInfo
from patchserve_server.domain.events import Events

_log = logging.getLogger(FRAME_LOG)


class FrameLines(Events):
    """Logs the first frame of each stream, and then every n-th."""

    def __init__(self, every: int) -> None:
        self._every = every

    def frame_ended(self, frame: FrameInfo, end: FrameEnd) -> None:
        if frame.sequence % self._every or not _log.isEnabledFor(logging.INFO):
            return
        fields = {
            "sequence": frame.sequence,
            "frame_id": frame.frame_id,
            "result": end.result,
            "duration_ms": round(end.duration_s * 1000, 1),
        }
        if end.reason:
            fields["reason"] = end.reason
        _log.info("Frame %s", end.result, extra=fields)
