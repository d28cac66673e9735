"""The engine's end of the link to one front: it says what it is before it may ask for anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from patchserve_server.domain.errors import NotReadyError
from patchserve_server.fronts.drawings import Drawings
from patchserve_server.fronts.frames import MAX_BODY_BYTES, Body, Head
from patchserve_server.fronts.link import Link
from patchserve_server.fronts.pinned_scores import PinnedScores
from patchserve_server.fronts.pixels import SharedPixels

_RETRY_S: Final = 5.0
_HELLO_S: Final = 10.0

Answer = Callable[[Head, bytes], Awaitable[tuple[Head, Body]]]


class Session:
    """What every engine answers a front. Subclasses say the rest.

    Args:
        version: of the engine.
        scores: pins and scores for this front.
        drawings: draws for this front; None: the device does not decode.
        pixels: the memory that is shared with each front of this machine, by the front's number.
    """

    def __init__(
        self, version: str, scores: PinnedScores, drawings: Drawings | None, pixels: Sequence[SharedPixels]
    ) -> None:
        self._version = version
        self._scores = scores
        self._all_pixels = pixels
        self._is_welcome = False
        self.link = Link(self, self._ended)
        self.link.connection.max_body_bytes = 0  # until it has said what it is
        self._deadline = asyncio.get_running_loop().call_later(_HELLO_S, self.link.close)
        self._answers: dict[str, Answer] = {"hello": self._hello, **scores.answers}
        if drawings is not None:
            self._answers |= drawings.answers

    async def answer(self, request: Head, body: bytes) -> tuple[Head, Body]:
        if not self._is_welcome and request.get("do") != "hello":
            self.link.close()
            raise NotReadyError("The first request of a front is `hello`.", _RETRY_S)
        return await self._answers[request["do"]](request, body)

    def told(self, message: Head, body: bytes) -> None:
        if not self._is_welcome:
            self.link.close()
        elif message["tell"] == "unpin":
            self._scores.unpin(message["pin"])
        else:
            self._told(message, body)

    async def _hello(self, request: Head, _: bytes) -> tuple[Head, Body]:
        if (version := request.get("version")) != self._version:
            versions = f"The engine is patchserve {self._version}, and this front is {version}"
            raise NotReadyError(f"{versions}: they need the same version.", _RETRY_S)
        if request["pixels"] is not None:
            self._scores.pixels = self._all_pixels[request["pixels"]]
        self._is_welcome = True
        self._deadline.cancel()
        self.link.connection.max_body_bytes = MAX_BODY_BYTES
        self.link.watch()
        return self._welcome()

    def _welcome(self) -> tuple[Head, Body]:
        """What the front is told first."""
        return {}, b""

    def _told(self, message: Head, body: bytes) -> None:
        """Takes what only some engines are told."""

    def _ended(self) -> None:
        self._deadline.cancel()
        self._scores.end_all()
