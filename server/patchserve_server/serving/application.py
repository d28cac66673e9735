"""Everything that the faces of the server call: put together by bootstrap, known to rpc."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from patchserve_server.domain.errors import InvalidImageError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import HeatmapScale, Inspection, OutputOptions
from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.serving.admission import Admission
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.inspector import Inspector
from patchserve_server.serving.loading import Loader
from patchserve_server.serving.sessions import Sessions


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Every bound that the server keeps, as GetServerInfo tells them."""

    max_image_bytes: int
    max_image_pixels: int
    max_image_side_px: int
    max_message_bytes: int
    max_reference_images: int
    max_pending_images: int
    max_in_flight: int
    default_in_flight: int
    default_timeout_s: float
    load_timeout_s: float
    max_bank_bytes: int


@dataclass(frozen=True, slots=True)
class Application:
    """A warm server without a socket."""

    detector: DetectorInfo
    limits: ServerLimits
    heatmap_scale: HeatmapScale
    catalog: Catalog
    loader: Loader
    inspector: Inspector
    sessions: Sessions
    admission: Admission  # of single pictures

    async def infer(
        self, reference_id: str, expected_revision: str, image: SentImage, options: OutputOptions
    ) -> Inspection:
        """Inspects one picture, or refuses at once where too many are under way.

        Raises:
            ReferenceNotFoundError, RevisionMismatchError, QueueFullError, and what Inspector.inspect raises.
        """
        reference = self.catalog.get(reference_id, expected_revision)
        async with self.admission.refuse_when_full():
            return await self.inspector.inspect(reference, image, options)

    async def infer_batch(
        self, reference_id: str, expected_revision: str, images: Sequence[SentImage], options: OutputOptions
    ) -> list[Inspection]:
        """Inspects pictures beside each other, all against one revision; each takes a place. All succeed or none.

        Raises:
            What `infer` raises; of a picture the field is `images[3]`.
        """
        reference = self.catalog.get(reference_id, expected_revision)

        async def inspect(index: int, image: SentImage) -> Inspection:
            try:
                async with self.admission.refuse_when_full():
                    return await self.inspector.inspect(reference, image, options)
            except InvalidImageError as error:
                raise error.at(f"images[{index}]") from error

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(inspect(index, image)) for index, image in enumerate(images)]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]
