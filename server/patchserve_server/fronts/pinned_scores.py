"""The engine's end of what one front pins and scores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import numpy as np

from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.fronts.codec_messages import file_from, undone
from patchserve_server.fronts.flows import SessionFlows
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.reference_use import OpenReference

Use = Callable[[ReferenceId, Revision], AbstractAsyncContextManager[OpenReference]]


@dataclass(frozen=True, slots=True, eq=False)
class _Pin:
    reference: OpenReference
    release: AsyncExitStack


class PinnedScores:
    """Holds the revisions that a front has pinned, and scores against them.

    Args:
        use: opens a revision.
        batcher: scores, in turn between the clients of all fronts.
        flows: of the front.
    """

    def __init__(self, use: Use, batcher: Batcher, flows: SessionFlows) -> None:
        self._use = use
        self._batcher = batcher
        self._flows = flows
        self._pins: dict[int, _Pin] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self.pixels: SharedPixels | None = None  # None: the front is on another machine
        self.answers = {"pin": self._pin, "score": self._score}

    async def _pin(self, request: Head, _: bytes) -> tuple[Head, Body]:
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(
                self._use(ReferenceId(request["id"]), Revision(request["revision"]))
            )
            self._pins[request["pin"]] = _Pin(opened, stack.pop_all())
        return {}, b""

    def unpin(self, number: int) -> None:
        """Releases what the front needs no more."""
        if (pin := self._pins.pop(number, None)) is not None:
            task = asyncio.create_task(pin.release.aclose())
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    def end_all(self) -> None:
        """The link has ended: releases everything."""
        for number in list(self._pins):
            self.unpin(number)

    async def _score(self, request: Head, body: bytes) -> tuple[Head, Body]:
        scorer, shape = self._pins[request["pin"]].reference.scorer, request["shape"]
        slot, pixels = request.get("slot"), self.pixels
        if slot is None or pixels is None:
            content = np.frombuffer(body, np.uint8).reshape(shape)  # (H, W, 3); or the bytes of a file
        else:
            content = pixels.view(slot, shape, np.uint8)
        image = file_from(request["file"], content.tobytes()) if "file" in request else content
        try:
            scored = await self._batcher.score(scorer, image, self._flows.of(request))
        except DeviceCodecError as error:
            return undone(error), b""
        anomaly_map = scored.raw.anomaly_map
        answer = {
            "score": scored.raw.image_score,
            "map": anomaly_map.shape,
            "decode_ms": scored.times.decode_ms,
            "embed_ms": scored.times.embed_ms,
            "search_ms": scored.times.search_ms,
            "queue_ms": scored.queue_ms,
        }
        if slot is None or pixels is None:
            return answer, np.ascontiguousarray(anomaly_map).data.cast("B")
        pixels.view(slot, anomaly_map.shape, np.float32)[:] = anomaly_map
        return answer, b""
