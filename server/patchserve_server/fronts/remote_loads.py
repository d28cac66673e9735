"""Loads by the engine of another process, and the images of its references."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence

from patchserve_server.domain.load_cost import LoadedReference
from patchserve_server.domain.load_progress import LoadProgress
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_image import NamedImage
from patchserve_server.fronts.link import Link
from patchserve_server.serving.admission import ONE, Capacity, Permit
from patchserve_server.serving.engine_ports import References
from patchserve_server.serving.reference_builder import LoadOptions
from patchserve_server.serving.reference_images import EncodedReferenceImage
from patchserve_server.serving.values import body_of, from_json, from_json_bytes


class RemoteLoads:
    """Implements `engine_ports.Loads` over a link.

    Each image goes to the engine as it was sent, and the next one only when it is decoded there: so the permits that
    this front holds for images cover those in the engine too.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = itertools.count(1)

    async def load(
        self, options: LoadOptions, images: AsyncIterator[NamedImage], image_total: int = 0
    ) -> LoadedReference:
        number = next(self._numbers)
        request = {"do": "load", "load": number, "total": image_total}
        loading = asyncio.create_task(self._link.ask(request, body_of(options)))
        try:
            async for image in images:
                if not await self._is_taken(number, image, loading):
                    break
            else:
                # As a task, like what came before it: tasks begin, and so send, in the order in which they are made.
                await asyncio.create_task(self._link.ask({"do": "load_end", "load": number}))
            _, body = await loading
            return from_json_bytes(LoadedReference, body)
        finally:
            loading.cancel()  # does nothing if it is done
            del loading  # its error refers to this frame: a cycle

    async def _is_taken(self, number: int, image: NamedImage, loading: asyncio.Task[object]) -> bool:
        """Sends an image; returns whether the engine may want another one. False: the load has ended."""
        taking = asyncio.create_task(
            self._link.ask({"do": "load_image", "load": number, "name": image.name}, image.data)
        )
        try:
            await asyncio.wait((taking, loading), return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                return False
            await taking
            return True
        finally:
            taking.cancel()

    async def list_loads(self, reference_id: ReferenceId | None = None) -> Sequence[LoadProgress]:
        _, body = await self._link.ask({"do": "list_loads", "id": reference_id})
        return [from_json(LoadProgress, item) for item in json.loads(body)]


class RemoteReferenceImages:
    """Implements `engine_ports.ReferenceImageReader` over a link."""

    def __init__(self, link: Link, references: References) -> None:
        self._link = link
        self._references = references

    async def read(
        self, permit: Permit, reference_id: ReferenceId, index: int, expected_revision: Revision | None = None
    ) -> EncodedReferenceImage:
        shape = (await self._references.info(reference_id, expected_revision)).input_shape
        permit.grow(ONE)
        permit.grow(Capacity(1, 3 * shape.pixels))
        request = {"do": "reference_image", "id": reference_id, "index": index, "expected": expected_revision}
        answer, png = await self._link.ask(request | {"client": permit.flow.client})
        return EncodedReferenceImage(png, shape, answer["name"], Revision(answer["revision"]))
