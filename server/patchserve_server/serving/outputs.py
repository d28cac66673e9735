"""Saves inspections for the operator (`--save-outputs`), beside the calls and never for long in front of them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from concurrent.futures import Executor
from contextvars import Context
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from patchserve_server.domain.events import ImageInspected
from patchserve_server.domain.inspection import OverlayFormat
from patchserve_server.domain.words import counted
from patchserve_server.imaging import encode_png, file_ending, to_rgb
from patchserve_server.serving.log_interval import LogInterval
from patchserve_server.serving.output_folder import FolderLimits, OutputFolder

MAX_WAITING_BYTES: Final = 64 * 2**20
MAX_WAITING: Final = 64
MAX_WAIT_S: Final = 1.0
_PAIR: Final = re.compile(r"\[\s+(-?\d+),\s+(-?\d+)\s+\]")
_TELL_EVERY_S: Final = 60.0
_PRUNE_EVERY_S: Final = 600.0
_OVERLAY_ENDING: Final = {OverlayFormat.PNG: "png", OverlayFormat.JPEG: "jpg", OverlayFormat.WEBP: "webp"}

_log = logging.getLogger(__name__)


class Saver(Protocol):
    """Saves inspections: `Outputs`, or the overlays of a scan."""

    async def save(self, inspected: ImageInspected) -> None:
        """Saves an inspection, if it is one to keep. The inspection waits for it, and fails with it."""


class Outputs:
    """Writes inspections to a folder on a thread of its own.

    A call waits at most MAX_WAIT_S for earlier inspections to be written. Then its own is not saved. That, and a disk
    that is full, is logged once a minute; the response does not depend on it.
    """

    def __init__(self, folder: OutputFolder, writing: Executor, *, only_anomalous: bool) -> None:
        self._folder = folder
        self._writing = writing
        self._only_anomalous = only_anomalous
        self._waiting = 0
        self._waiting_bytes = 0
        self._written = asyncio.Event()
        self._lost = LogInterval(_TELL_EVERY_S)

    def change(self, limits: FolderLimits, *, only_anomalous: bool) -> None:
        """Keeps other inspections, and within other limits, from now on."""
        self._only_anomalous = only_anomalous
        self._writing.submit(self._folder.change_limits, limits)

    async def save(self, inspected: ImageInspected) -> None:
        """Let the inspection be written, if it is one to keep. Raises nothing."""
        if self._only_anomalous and not inspected.inspection.verdict.anomaly.is_anomalous:
            return
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                while not self._has_room_for(inspected):
                    self._written.clear()
                    await self._written.wait()
        except TimeoutError:
            self._add_lost("the folder is written too slowly")
            return
        self._waiting += 1
        self._waiting_bytes += inspected.nbytes
        future = asyncio.get_running_loop().run_in_executor(self._writing, self._write, inspected)
        future.add_done_callback(lambda done: self._has_written(inspected.nbytes, done))

    def _has_room_for(self, inspected: ImageInspected) -> bool:
        has_bytes = not self._waiting or self._waiting_bytes + inspected.nbytes <= MAX_WAITING_BYTES
        return has_bytes and self._waiting < MAX_WAITING

    def _has_written(self, nbytes: int, done: asyncio.Future[None]) -> None:
        self._waiting -= 1
        self._waiting_bytes -= nbytes
        self._written.set()
        if not done.cancelled() and (error := done.exception()) is not None:
            reason = error.strerror if isinstance(error, OSError) else None
            self._add_lost(reason or f"{type(error).__name__}: {error}")

    def _add_lost(self, reason: str) -> None:
        if (due := self._lost.count()) is not None:
            # Outside of this call: it is about many.
            Context().run(_log.error, "--save-outputs: %s not saved: %s", counted(due[0], "inspection"), reason)

    def _write(self, inspected: ImageInspected) -> None:
        inspection = inspected.inspection
        verdict = "anomalous" if inspection.verdict.anomaly.is_anomalous else "intact"
        stem = self._folder.new_stem([inspection.reference_id, verdict, inspected.origin.name])
        sent = inspected.image
        image = sent.content if isinstance(sent.content, bytes) else encode_png(to_rgb(sent.content, sent.white_level))
        overlay = inspection.overlay or inspected.draw_overlay(inspected.image)
        contents = {
            f".original.{file_ending(image)}": image,
            f".overlay.{_OVERLAY_ENDING[overlay.format]}": overlay.data,
            ".json": _json(inspected).encode(),
        }
        self._folder.write(stem, contents)

    async def prune_periodically(self) -> None:
        """Remove what is too old, also while nothing is saved, until cancelled."""
        while True:
            await asyncio.sleep(_PRUNE_EVERY_S)
            await asyncio.get_running_loop().run_in_executor(self._writing, self._folder.prune)


def _json(inspected: ImageInspected) -> str:
    inspection = dataclasses.replace(inspected.inspection, overlay=None, score_map=None)
    result: dict[str, Any] = {"name": inspected.origin.name, "time": datetime.now(UTC).isoformat()}
    result |= dataclasses.asdict(inspection)
    del result["overlay"], result["score_map"]
    text = json.dumps(result, indent=2, ensure_ascii=False)
    return _PAIR.sub(r"[\1, \2]", text) + "\n"  # points and sizes in one line
