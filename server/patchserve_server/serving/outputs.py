"""Keeps overlays in a folder for the operator (`--save-outputs`)."""

from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime
from pathlib import Path

from patchserve_server.domain.inspection import EncodedOverlay, Inspection, OverlayFormat

_SUFFIX = {OverlayFormat.PNG: "png", OverlayFormat.JPEG: "jpg", OverlayFormat.WEBP: "webp"}
_log = logging.getLogger(__name__)


class FolderSink:
    """A file an overlay, as it was sent: `<time>-<number>-<reference>-<verdict>`, and .png, .jpg or .webp.

    Nothing is ever removed or replaced.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._number = itertools.count(1)

    def keep(self, inspection: Inspection, overlay: EncodedOverlay) -> None:
        verdict = "anomalous" if inspection.verdict.anomaly.is_anomalous else "intact"
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        name = f"{time}-{next(self._number):06d}-{inspection.reference_id}-{verdict}.{_SUFFIX[overlay.format]}"
        try:
            (self._folder / name).write_bytes(overlay.data)
        except OSError as error:  # the caller's answer does not depend on it
            _log.error("An overlay could not be kept: %s", error.strerror)
