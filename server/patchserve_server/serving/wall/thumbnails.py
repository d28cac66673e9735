"""Draws thumbnails on the pool of images, one at a time, so that the callers find its threads free."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from patchserve_server.serving.wall.tile import Tile

MAX_WAITING: Final = 8

_log = logging.getLogger(__name__)


class Thumbnails:
    """A queue of tiles whose thumbnails are drawn one after the other.

    Of more than MAX_WAITING, the oldest is delivered without one, because the pool is busy with what callers sent.

    Args:
        images: the pool.
        deliver: gets each tile and its thumbnail, or no bytes if none was drawn.
    """

    def __init__(self, images: Executor, deliver: Callable[[Tile, bytes], None]) -> None:
        self._images = images
        self._deliver = deliver
        self._waiting: deque[tuple[Tile, Callable[[], bytes]]] = deque()
        self._is_drawing = False

    def add(self, tile: Tile, draw: Callable[[], bytes]) -> None:
        """Lets a thumbnail be drawn, which blocks a thread of the pool for half a millisecond."""
        self._waiting.append((tile, draw))
        if len(self._waiting) > MAX_WAITING:
            self._deliver(self._waiting.popleft()[0], b"")
        self._draw_next()

    def _draw_next(self) -> None:
        if self._is_drawing or not self._waiting:
            return
        self._is_drawing = True
        tile, draw = self._waiting.popleft()
        drawing = asyncio.get_running_loop().run_in_executor(self._images, draw)
        drawing.add_done_callback(lambda drawn: self._has_drawn(tile, drawn))

    def _has_drawn(self, tile: Tile, drawn: asyncio.Future[bytes]) -> None:
        self._is_drawing = False
        thumbnail = b""
        if not drawn.cancelled():  # it is when the server ends
            if (error := drawn.exception()) is None:
                thumbnail = drawn.result()
            else:
                _log.error("The thumbnail of an inspection was not drawn", exc_info=error)
        self._deliver(tile, thumbnail)
        self._draw_next()
