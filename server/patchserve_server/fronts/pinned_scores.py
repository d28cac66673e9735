"""The engine's end of what one front pins and scores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np

from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.reference_use import OpenReference

_STREAM_BITS: Final = 48

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
        session: its number, which no other session of the engine has.
    """

    def __init__(self, use: Use, batcher: Batcher, session: int) -> None:
        self._use = use
        self._batcher = batcher
        self._session = session
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
        stream = request["stream"]  # each front numbers its own
        flow = FlowKey(request["client"], stream and (self._session << _STREAM_BITS) + stream)
        slot, pixels = request.get("slot"), self.pixels
        if slot is None or pixels is None:
            model_input = np.frombuffer(body, np.uint8).reshape(shape)  # (H, W, 3)
        else:
            model_input = pixels.view(slot, shape, np.uint8)
        scored = await self._batcher.score(scorer, model_input, flow)
        anomaly_map = scored.raw.anomaly_map
        answer = {
            "score": scored.raw.image_score,
            "map": anomaly_map.shape,
            "embed_ms": scored.times.embed_ms,
            "search_ms": scored.times.search_ms,
            "queue_ms": scored.queue_ms,
        }
        if slot is None or pixels is None:
            return answer, np.ascontiguousarray(anomaly_map).data.cast("B")
        pixels.view(slot, anomaly_map.shape, np.float32)[:] = anomaly_map
        return answer, b""
