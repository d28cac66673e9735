"""Inspects the images of parts, and publishes their rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.images import SentImage
from patchserve_server.scan.counts import Counts
from patchserve_server.scan.errors import UNREADABLE, UnreadableImageError
from patchserve_server.scan.options import Overlays, ScanOptions
from patchserve_server.scan.overlays import OverlayFiles, overlay_file
from patchserve_server.scan.plan import Part
from patchserve_server.scan.reading import ImageReader
from patchserve_server.scan.results import Results
from patchserve_server.scan.rows import Row, counts_of, failed_row, inspected_row, parquet_of
from patchserve_server.serving.fairness import FairSemaphore, FlowKey
from patchserve_server.serving.inspector import Inspector
from patchserve_server.serving.reference_use import OpenReference

_FLOW: Final = FlowKey("scan")


class PartInspector:
    """Inspects each image as a call of Infer does: with the inspector of the server.

    Args:
        options: of the scan.
        inspector: saves overlays with `overlays`.
        reference: that is open.
        reader: of the images.
        results: where parts are published.
        overlays: says which images have one.
        reading: reads images.
        writing: publishes parts.
        room: how many images are in memory at once, over all parts.
    """

    def __init__(
        self,
        options: ScanOptions,
        inspector: Inspector,
        reference: OpenReference,
        reader: ImageReader,
        results: Results,
        *,
        overlays: OverlayFiles,
        reading: Executor,
        writing: Executor,
        room: FairSemaphore,
    ) -> None:
        self._options = options
        self._inspector = inspector
        self._reference = reference
        self._reader = reader
        self._results = results
        self._overlays = overlays
        self._reading = reading
        self._writing = writing
        self._room = room
        self._output = options.output(overlay=options.overlays is Overlays.ALL)

    async def inspect(self, part: Part, has_inspected: Callable[[], None] = lambda: None) -> Counts:
        """Inspects all images of a part, then publishes their rows in their order: the step that makes it done.

        Args:
            part: several may be inspected at once.
            has_inspected: called after each image.

        Raises:
            ScanError, PatchserveError: the results, the bucket of the images or the engine cannot be used.
        """
        rows: list[Row] = [{}] * len(part.paths)

        async def inspect(index: int) -> None:
            async with self._room.turn(_FLOW):
                rows[index] = await self._row(part, index)
            has_inspected()

        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(part.paths)):
                    group.create_task(inspect(index))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await asyncio.get_running_loop().run_in_executor(self._writing, self._publish, part, rows)
        return counts_of(rows)

    def _publish(self, part: Part, rows: list[Row]) -> None:
        self._results.write(part.file, parquet_of(rows))

    async def _row(self, part: Part, index: int) -> Row:
        path, options, image = part.paths[index], self._options, None
        file = overlay_file(options, part, index)
        try:
            image = await asyncio.get_running_loop().run_in_executor(self._reading, self._reader.read, path)
            sent = SentImage(image.data, options.white_level)
            inspection = await self._inspector.inspect(self._reference, sent, self._output, _FLOW, name=file)
        except UnreadableImageError as error:
            return failed_row(options, path, image, UNREADABLE, str(error))
        except InvalidInputError as error:
            return failed_row(options, path, image, error.reason, error.message)
        has_overlay = self._overlays.is_wanted(is_anomalous=inspection.verdict.anomaly.is_anomalous)
        return inspected_row(options, path, image, inspection, file if has_overlay else None)
