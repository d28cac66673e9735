"""The use cases of the server. `bootstrap` creates the application, the servicers call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from patchserve_server.domain.errors import InvalidImageError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import HeatmapScale, Inspection, OutputOptions
from patchserve_server.domain.load_cost import LoadedReference
from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_image import NamedImage
from patchserve_server.imaging import ImageLimits, may_have_16_bits, to_png
from patchserve_server.serving.admission import Admission, Capacity, Permit
from patchserve_server.serving.engine_ports import Drifts, Loads, ReferenceImageReader, References, Transfer
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.inspector import Inspector
from patchserve_server.serving.reference_builder import LoadOptions
from patchserve_server.serving.reference_transfer import ImportOptions
from patchserve_server.serving.shared_statistics import SharedStatistics
from patchserve_server.serving.streams import Streams
from patchserve_server.serving.wall import KeptImage, SharedWall

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """All limits of the server, as GetServerInfo reports them."""

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
    max_connection_age_s: float  # 0: no limit
    max_timeout_s: float
    max_load_timeout_s: float
    first_message_timeout_s: float
    max_idle_streams: int  # of one client


@dataclass(frozen=True, slots=True)
class Application:
    """The server without its network side, ready to serve.

    Args:
        version: of the server.
        http_url: where its HTTP face is, such as `http://127.0.0.1:8080`; empty: it has none.
        grpc_address: where gRPC is, `HOST:PORT` or `unix:PATH`.
    """

    version: str
    http_url: str
    grpc_address: str
    detector: DetectorInfo
    limits: ServerLimits
    heatmap_scale: HeatmapScale
    catalog: References
    builder: Loads
    inspector: Inspector
    streams: Streams
    reference_images: ReferenceImageReader
    calls: Admission
    images: Admission  # of single calls, streams and loads together
    loads: Admission
    wall: SharedWall
    statistics: SharedStatistics
    drift: Drifts
    transfer: Transfer

    async def infer(
        self,
        permit: Permit,
        reference_id: ReferenceId,
        expected_revision: Revision | None,
        image: SentImage,
        options: OutputOptions,
        *,
        answer: Callable[[Inspection], T],
        name: str = "",
    ) -> T:
        """Inspects one image; returns what `answer` makes of the inspection, on the pool of images.

        The permit grows to the image's size; the name is the caller's, for saved outputs.

        Raises:
            ReferenceNotFoundError, RevisionMismatchError, QueueFullError, and the errors of Inspector.inspect.
        """
        permit.grow(capacity_of([image]))
        async with self.catalog.use(reference_id, expected_revision) as reference:
            return await self.inspector.answer(reference, image, options, permit.flow, answer=answer, name=name)

    async def infer_batch(
        self,
        permit: Permit,
        reference_id: ReferenceId,
        expected_revision: Revision | None,
        images: Sequence[SentImage],
        options: OutputOptions,
        *,
        name: str = "",
    ) -> list[Inspection]:
        """Inspects images concurrently with the same revision; one failure fails all. The permit grows to their size.

        Raises:
            The errors of `infer`. The field of an image is, for example, `images[3]`.
        """
        permit.grow(capacity_of(images))

        async def inspect(index: int, image: SentImage) -> Inspection:
            try:
                own_name = f"{name}-{index}" if len(images) > 1 else name
                return await self.inspector.inspect(reference, image, options, permit.flow, name=own_name)
            except InvalidImageError as error:
                raise error.with_field(f"images[{index}]") from error

        async with self.catalog.use(reference_id, expected_revision) as reference:
            failure: Exception | None = None
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(inspect(index, image)) for index, image in enumerate(images)]
            except ExceptionGroup as errors:
                failure = errors.exceptions[0]
                errors.__traceback__ = None  # it leads to the group, and so to itself: a cycle
            if failure is not None:
                try:
                    raise failure
                finally:
                    del failure, tasks  # the error's traceback refers to this frame: a cycle
            return [task.result() for task in tasks]

    async def inspect_again(self, permit: Permit, kept: KeptImage) -> Inspection:
        """Inspects a kept image with the current revision of its reference. The permit grows to its size.

        Raises:
            The errors of `infer`.
        """
        permit.grow(capacity_of([kept.image]))
        async with self.catalog.use(kept.reference_id) as reference:
            return await self.inspector.inspect_again(reference, kept.image, OutputOptions(), permit.flow)

    async def file_of(self, permit: Permit, kept: KeptImage) -> bytes:
        """A kept image as its caller sent it; as PNG with 8 bits if it is no file, or was read with a white level.

        So a browser shows it as it was inspected, and a reference can take it. The permit grows to its size.

        Raises:
            QueueFullError: there is no capacity for one more image.
        """
        image = kept.image
        if isinstance(image.content, bytes) and (image.white_level is None or not may_have_16_bits(image.content)):
            return image.content
        permit.grow(capacity_of([image]))
        limits = ImageLimits(self.limits.max_image_bytes, self.limits.max_image_pixels)
        return await self.inspector.draw(partial(to_png, image, limits), permit.flow)

    async def inspection_of(self, permit: Permit, kept: KeptImage) -> Inspection:
        """What the caller of a kept image was answered, with an overlay for whoever looks at it.

        Raises:
            QueueFullError: there is no capacity for one more image.
        """
        permit.grow(capacity_of([kept.image]))
        overlay = await self.inspector.draw(partial(kept.draw_overlay, kept.image), permit.flow)
        return replace(kept.tile.inspection, overlay=overlay)

    async def load(self, permit: Permit, options: LoadOptions, images: Sequence[NamedImage]) -> LoadedReference:
        """Loads images that came in one message. The permit grows to their size.

        Raises:
            QueueFullError, and the errors of ReferenceBuilder.load.
        """
        permit.grow(Capacity(bytes=sum(len(image.data) for image in images)))
        return await self.builder.load(options, _iterate(images), len(images))

    async def load_stream(
        self, client: str, options: LoadOptions, images: AsyncGenerator[NamedImage]
    ) -> LoadedReference:
        """Loads streamed images. Each one waits for its permit before the next is read.

        Raises:
            The errors of ReferenceBuilder.load.
        """
        async with aclosing(images), aclosing(self._admitted(FlowKey.of_stream(client), images)) as admitted:
            return await self.builder.load(options, admitted)

    async def import_reference(
        self, client: str, options: ImportOptions, chunks: AsyncGenerator[bytes]
    ) -> ReferenceInfo:
        """Imports a file. Each chunk waits for its permit before the next is read.

        Raises:
            The errors of ReferenceTransfer.import_reference.
        """
        async with aclosing(chunks), aclosing(self._admitted_chunks(FlowKey.of_stream(client), chunks)) as admitted:
            return await self.transfer.import_reference(options, admitted)

    async def _admitted_chunks(self, flow: FlowKey, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        async for chunk in chunks:
            with await self.images.acquire_for_stream(flow, Capacity(1, len(chunk))):
                yield chunk

    async def _admitted(self, flow: FlowKey, images: AsyncGenerator[NamedImage]) -> AsyncGenerator[NamedImage]:
        async for image in images:
            with await self.images.acquire_for_stream(flow, Capacity(1, len(image.data))):
                yield image


def capacity_of(images: Sequence[SentImage]) -> Capacity:
    """The capacity that these images need."""
    return Capacity(len(images), sum(image.nbytes for image in images))


async def _iterate(images: Iterable[NamedImage]) -> AsyncGenerator[NamedImage]:
    for image in images:
        yield image
