"""A load whose images come over a link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from patchserve_server.domain.reference_image import NamedImage


class IncomingLoad:
    """Passes images on, one at a time."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[NamedImage, asyncio.Future[None]] | None] = asyncio.Queue()

    async def put(self, image: NamedImage) -> None:
        """Returns when the builder is done with the image: it asks for the next one."""
        done = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((image, done))
        await done

    def end(self) -> None:
        """No image follows."""
        self._queue.put_nowait(None)

    async def images(self) -> AsyncIterator[NamedImage]:
        """All images, for the builder."""
        while (item := await self._queue.get()) is not None:
            image, done = item
            yield image
            del image, item  # they would stay in memory until the next one comes
            if not done.done():
                done.set_result(None)
