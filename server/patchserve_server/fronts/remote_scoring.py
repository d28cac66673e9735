"""Scoring by the engine of another process."""

from __future__ import annotations

from functools import partial

import numpy as np

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.domain.ports import ScoringTimes
from patchserve_server.fronts.codec_messages import file_head, raise_if_undone
from patchserve_server.fronts.devices import HeldRevision, Pin
from patchserve_server.fronts.frames import Head
from patchserve_server.serving.batching import BatchedScores
from patchserve_server.serving.engine_ports import ReferenceInUse
from patchserve_server.serving.fairness import FlowKey


class RemoteScoring:
    """Implements `engine_ports.Scoring` over the link to the device that has least to do."""

    async def score(self, reference: ReferenceInUse, image: ModelInputs | JpegFile, flow: FlowKey) -> BatchedScores:
        if not isinstance(reference, HeldRevision):
            raise TypeError(f"This front has not pinned {reference}.")
        pin = await reference.pin()
        pin.device.in_progress += 1
        try:
            return await _score(pin, reference, image, flow)
        finally:
            pin.device.in_progress -= 1


async def _score(pin: Pin, reference: HeldRevision, image: ModelInputs | JpegFile, flow: FlowKey) -> BatchedScores:
    link, pixels = pin.device.link, pin.device.pixels
    request: Head = {"do": "score", "pin": pin.number, "client": flow.client, "stream": flow.stream}
    if isinstance(image, JpegFile):
        request |= {"file": file_head(image)}
        content = np.frombuffer(image.data, np.uint8)
    else:
        content = np.ascontiguousarray(image)
    request["shape"] = content.shape
    largest = max(content.nbytes, 4 * reference.info.input_shape.map_shape.pixels)
    slot = None if pixels is None else pixels.take(largest)
    if pixels is None or slot is None:
        answer, body = await link.ask(request, content.data.cast("B"))
        raise_if_undone(answer)
        anomaly_map = np.frombuffer(body, np.float32).reshape(answer["map"])
    else:
        pixels.view(slot, content.shape, np.uint8)[:] = content
        # The slot may be taken again only when the engine is done with it, even if the caller has left before.
        answer, _ = await link.ask(request | {"slot": slot}, answered=partial(pixels.release, slot))
        raise_if_undone(answer)
        anomaly_map = pixels.view(slot, answer["map"], np.float32).copy()  # before anything else runs
    times = ScoringTimes(answer["embed_ms"], answer["search_ms"], answer["decode_ms"])
    return BatchedScores(RawScores(answer["score"], anomaly_map), times, answer["queue_ms"])
