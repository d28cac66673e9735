"""Scoring by the engine of this process."""

from __future__ import annotations

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.serving.batching import BatchedScores, Batcher
from patchserve_server.serving.engine_ports import ReferenceInUse
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.reference_use import OpenReference


class LocalScoring:
    """Implements `engine_ports.Scoring`: with the scorer of the open reference."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    async def score(self, reference: ReferenceInUse, image: ModelInputs | JpegFile, flow: FlowKey) -> BatchedScores:
        if not isinstance(reference, OpenReference):
            raise TypeError(f"The catalog of this process did not open {reference}.")
        return await self._batcher.score(reference.scorer, image, flow)
