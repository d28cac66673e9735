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
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.serving.admission import Admission, Capacity
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.inspector import Inspector
from patchserve_server.serving.reference_builder import LoadOptions, ReferenceBuilder
from patchserve_server.serving.streams import Streams


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
    loader: ReferenceBuilder
    inspector: Inspector
    sessions: Streams
    calls: Admission
    images: Admission  # of single calls, streams and loads together
    loads: Admission

    async def infer(
        self,
        client: str,
        reference_id: ReferenceId,
        expected_revision: Revision | None,
        image: bytes,
        options: OutputOptions,
    ) -> Inspection:
        """Inspects one image whose place was taken, or refuses at once where its bytes are too many.

        Raises:
            ReferenceNotFoundError, RevisionMismatchError, QueueFullError, and what Inspector.inspect raises.
        """
        with self.images.take(client, Capacity(bytes=len(image))):
            async with self.catalog.use(reference_id, expected_revision) as reference:
                return await self.inspector.inspect(reference, image, options, FlowKey(client))

    async def infer_batch(
        self,
        flow: FlowKey,
        reference_id: ReferenceId,
        expected_revision: Revision | None,
        images: Sequence[SentImage],
        options: OutputOptions,
    ) -> list[Inspection]:
        """Inspects images beside each other, all against one revision. All succeed or none.

        A batch of a stream waits for room; any other, one of whose places was taken, is refused at once where there is
        none.

        Raises:
            What `infer` raises; of an image the field is `images[3]`.
        """
        sizes = sum(image.nbytes if isinstance(image, np.ndarray) else len(image) for image in images)
        if flow.stream:
            hold = await self.images.wait(flow, Capacity(len(images), sizes))
        else:
            hold = self.images.take(flow.client, Capacity(len(images) - 1, sizes))

        async def inspect(index: int, image: SentImage) -> Inspection:
            try:
                return await self.inspector.inspect(reference, image, options, flow)
            except InvalidImageError as error:
                raise error.at(f"images[{index}]") from error

        with hold:
            async with self.catalog.use(reference_id, expected_revision) as reference:
                try:
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(inspect(index, image)) for index, image in enumerate(images)]
                except ExceptionGroup as errors:
                    raise errors.exceptions[0] from None
                return [task.result() for task in tasks]

    async def load(self, client: str, options: LoadOptions, images: Sequence[bytes]) -> ReferenceInfo:
        """Loads images that came in one message, or refuses at once where their bytes are too many.

        Raises:
            QueueFullError, and what ReferenceBuilder.load raises.
        """
        with self.images.take(client, Capacity(bytes=sum(map(len, images)))):
            return await self.loader.load(options, _each(images), len(images))

    async def load_stream(self, client: str, options: LoadOptions, images: AsyncGenerator[bytes]) -> ReferenceInfo:
        """Loads images that come one by one; each waits for room before the next is asked for.

        Raises:
            What ReferenceBuilder.load raises.
        """
        async with aclosing(images), aclosing(self._admitted(FlowKey.of_stream(client), images)) as admitted:
            return await self.loader.load(options, admitted)

    async def _admitted(self, flow: FlowKey, images: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        async for image in images:
            with await self.images.wait(flow, Capacity(1, len(image))):
                yield image


async def _each(images: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for image in images:
        yield image
