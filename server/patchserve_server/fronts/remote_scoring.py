"""Scoring by the engine of another process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import ScoringTimes
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.fronts.frames import Head
from patchserve_server.fronts.link import Link
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.serving.batching import BatchedScores
from patchserve_server.serving.engine_ports import ReferenceInUse
from patchserve_server.serving.fairness import FlowKey


@dataclass(frozen=True, slots=True, eq=False)
class PinnedReference:
    """A revision that the engine keeps open for this front."""

    info: ReferenceInfo
    pin: int


class RemoteScoring:
    """Implements `engine_ports.Scoring` over a link.

    Args:
        link: to the engine.
        pixels: the memory that this front shares with it; None: it is on another machine.
    """

    def __init__(self, link: Link, pixels: SharedPixels | None) -> None:
        self._link = link
        self._pixels = pixels

    async def score(self, reference: ReferenceInUse, model_input: ModelInputs, flow: FlowKey) -> BatchedScores:
        if not isinstance(reference, PinnedReference):
            raise TypeError(f"This front has not pinned {reference}.")
        request: Head = {
            "do": "score",
            "pin": reference.pin,
            "client": flow.client,
            "stream": flow.stream,
            "shape": model_input.shape,
        }
        largest = max(model_input.nbytes, 4 * reference.info.input_shape.map_shape.pixels)
        slot = None if self._pixels is None else self._pixels.take(largest)
        if self._pixels is None or slot is None:
            answer, body = await self._link.ask(request, np.ascontiguousarray(model_input).data.cast("B"))
            anomaly_map = np.frombuffer(body, np.float32).reshape(answer["map"])
        else:
            self._pixels.view(slot, model_input.shape, np.uint8)[:] = model_input
            # The slot may be taken again only when the engine is done with it, even if the caller has left before.
            answer, _ = await self._link.ask(request | {"slot": slot}, answered=partial(self._pixels.release, slot))
            anomaly_map = self._pixels.view(slot, answer["map"], np.float32).copy()  # before anything else runs
        times = ScoringTimes(answer["embed_ms"], answer["search_ms"])
        return BatchedScores(RawScores(answer["score"], anomaly_map), times, answer["queue_ms"])
