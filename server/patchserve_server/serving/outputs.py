"""Saves every overlay to a folder (`--save-outputs`)."""

from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime
from pathlib import Path

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.inspection import EncodedOverlay, Inspection, OverlayFormat

_SUFFIX = {OverlayFormat.PNG: "png", OverlayFormat.JPEG: "jpg", OverlayFormat.WEBP: "webp"}
_log = logging.getLogger(__name__)


class FolderSink:
    """Writes one file for each overlay, with the same bytes as in the response. Never deletes or replaces a file.

    The name of a file is `<time>-<number>-<reference>-<verdict>` with the suffix .png, .jpg or .webp.
    """

    def __init__(self, folder: Path) -> None:
        """Create the folder if it is missing. Blocks.

        Raises:
            StartupError: it cannot be created.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"--save-outputs {folder}: {error.strerror}. Name a folder that the server's user can write to."
            raise StartupError(message) from error
        self._folder = folder
        self._number = itertools.count(1)

    def save(self, inspection: Inspection, overlay: EncodedOverlay) -> None:
        """Write the overlay. Blocks. A failure is logged; the response does not depend on it."""
        verdict = "anomalous" if inspection.verdict.anomaly.is_anomalous else "intact"
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        name = f"{time}-{next(self._number):06d}-{inspection.reference_id}-{verdict}.{_SUFFIX[overlay.format]}"
        try:
            (self._folder / name).write_bytes(overlay.data)
        except OSError as error:
            _log.error("Could not save an overlay: %s", error.strerror)
