"""Everything that the faces of the server call: put together by bootstrap, known to rpc."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from patchserve_server.domain.errors import InvalidImageError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import HeatmapScale, Inspection, OutputOptions
from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.domain.reference import Reference
from patchserve_server.serving.admission import Admission, Room
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.fairness import Flow
from patchserve_server.serving.inspector import Inspector
from patchserve_server.serving.loading import Loader, LoadOptions
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
    max_pending_bytes: int
    max_pending_loads: int
    max_calls: int
    max_batch_size: int
    stream_write_timeout_s: float
    max_client_pending_images: int
    max_client_pending_bytes: int
    max_client_pending_loads: int
    max_client_calls: int
    max_connection_age_s: float  # 0: none


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
    calls: Admission
    pictures: Admission  # of single calls, streams and loads together
    loads: Admission

    async def infer(
        self, client: str, reference_id: str, expected_revision: str, image: bytes, options: OutputOptions
    ) -> Inspection:
        """Inspects one picture whose place was taken, or refuses at once where its bytes are too many.

        Raises:
            ReferenceNotFoundError, RevisionMismatchError, QueueFullError, and what Inspector.inspect raises.
        """
        with self.pictures.take(client, Room(bytes=len(image))):
            reference = await self.catalog.get(reference_id, expected_revision)
            return await self.inspector.inspect(reference, image, options, Flow(client))

    async def infer_batch(
        self, flow: Flow, reference_id: str, expected_revision: str, images: Sequence[SentImage], options: OutputOptions
    ) -> list[Inspection]:
        """Inspects pictures beside each other, all against one revision. All succeed or none.

        A batch of a stream waits for room; any other, one of whose places was taken, is refused at once where there is
        none.

        Raises:
            What `infer` raises; of a picture the field is `images[3]`.
        """
        sizes = sum(image.nbytes if isinstance(image, np.ndarray) else len(image) for image in images)
        if flow.stream:
            hold = await self.pictures.wait(flow, Room(len(images), sizes))
        else:
            hold = self.pictures.take(flow.client, Room(len(images) - 1, sizes))

        async def inspect(index: int, image: SentImage) -> Inspection:
            try:
                return await self.inspector.inspect(reference, image, options, flow)
            except InvalidImageError as error:
                raise error.at(f"images[{index}]") from error

        with hold:
            reference = await self.catalog.get(reference_id, expected_revision)
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(inspect(index, image)) for index, image in enumerate(images)]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            return [task.result() for task in tasks]

    async def load(self, client: str, options: LoadOptions, images: Sequence[bytes]) -> Reference:
        """Loads pictures that came in one message, or refuses at once where their bytes are too many.

        Raises:
            QueueFullError, and what Loader.load raises.
        """
        with self.pictures.take(client, Room(bytes=sum(map(len, images)))):
            return await self.loader.load(options, _each(images), len(images))

    async def load_stream(self, client: str, options: LoadOptions, images: AsyncGenerator[bytes]) -> Reference:
        """Loads pictures that come one by one; each waits for room before the next is asked for.

        Raises:
            What Loader.load raises.
        """
        async with aclosing(images), aclosing(self._admitted(Flow.of_stream(client), images)) as admitted:
            return await self.loader.load(options, admitted)

    async def _admitted(self, flow: Flow, images: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        async for image in images:
            with await self.pictures.wait(flow, Room(1, len(image))):
                yield image


async def _each(images: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for image in images:
        yield image
