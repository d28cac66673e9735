"""Scores model inputs of several references: the network sees them together, then each bank is searched.

What is embedded and searched at once of a reference does not depend on the other references of the batch, and neither
does any bit of its scores.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import ScoredPart, ScorerInputs, ScoringTimes
from patchserve_server.engine.backbone.devices import synchronize
from patchserve_server.engine.patchcore.patch_scores import PatchScores
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.tiling import Tile
from patchserve_server.engine.search.bank_index import BankIndex


@dataclass(slots=True, eq=False)
class Part:
    """The model inputs of one reference, and what is known of their scores so far."""

    number: int
    pipeline: Pipeline
    index: BankIndex | PatchSubspace
    inputs: ScorerInputs  # (B, H, W, 3); or files, which only a device takes
    scores: list[RawScores] = field(default_factory=list)
    failure: Exception | None = None
    _masked: ModelInputs | None = None  # the images that are scored at the moment
    _tile_scores: list[PatchScores] = field(default_factory=list)  # of these images

    @property
    def images_per_step(self) -> int:
        """How many images are scored at once."""
        return self.pipeline.images_per_pass

    def steps(self) -> Iterator[Step]:
        """All tiles of all images, in groups of neighbors.

        Of each group only the scores of its patches are kept, so that the vectors of a large image are never in memory
        together.
        """
        groups, size = self.pipeline.tile_groups, self.images_per_step
        for start in range(0, len(self.inputs), size):
            images = range(start, min(start + size, len(self.inputs)))
            for tiles in groups:
                yield Step(self, images, tiles, is_first=tiles is groups[0], is_last=tiles is groups[-1])

    def model_inputs(self, images: range) -> ModelInputs:
        """Some of the images, (b, H, W, 3).

        Raises:
            TypeError: they are files.
        """
        if not isinstance(self.inputs, np.ndarray):
            raise TypeError("This detector takes model inputs, and no files.")
        return self.inputs[images.start : images.stop]

    def cut(self, step: Step) -> ModelInputs:
        """What the network sees: (b * T, h, w, 3)."""
        if step.is_first or self._masked is None:
            self._masked = self.pipeline.mask(self.model_inputs(step.images))
        return self.pipeline.tiling.cut(self._masked, step.tiles)

    def search(self, step: Step, patches: Tensor) -> None:
        """Takes the patch vectors (b, P, D) of a step."""
        positions = self.pipeline.tiling.positions(step.tiles).to(patches.device)
        self._tile_scores.append(self.pipeline.scores_against(patches, self.index, positions))
        if step.is_last:
            self.scores += self.pipeline.image_scores(PatchScores.join(self._tile_scores), self.index)
            self._tile_scores.clear()

    @contextmanager
    def fails_alone(self) -> Iterator[None]:
        """Keeps an error for whoever waits for this part, so that the others go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - its caller gets it
            self.failure = error

    @property
    def is_done(self) -> bool:
        return self.failure is not None or len(self.scores) == len(self.inputs)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What is embedded and searched at once: some tiles of some images of one part."""

    part: Part
    images: range
    tiles: Sequence[Tile]
    is_first: bool  # of these images
    is_last: bool

    @property
    def count(self) -> int:
        """How many tiles the network sees."""
        return len(self.images) * len(self.tiles)


@dataclass(slots=True)
class Clock:
    decode_s: float = 0.0
    embed_s: float = 0.0
    search_s: float = 0.0
    _since_s: float = field(default_factory=time.perf_counter)

    def lap_s(self) -> float:
        """The time since the last lap."""
        before_s, self._since_s = self._since_s, time.perf_counter()
        return self._since_s - before_s

    @property
    def times(self) -> ScoringTimes:
        return ScoringTimes(1000 * self.embed_s, 1000 * self.search_s, 1000 * self.decode_s)


@torch.inference_mode()
def score_parts(parts: Sequence[Part]) -> Iterator[ScoredPart]:
    """The outcome of each part, as soon as it is there. All pipelines have the same `batch_key`.

    Small banks come first, so that nobody who uses one waits for the search of a large one. An error of the network,
    which they share, is raised.
    """
    clock = Clock()
    steps = (step for part in sorted(parts, key=lambda part: part.index.nbytes) for step in part.steps())
    for shared in passes(steps):
        for part in _score(shared, clock):
            failure = part.failure
            yield ScoredPart(part.number, part.scores if failure is None else failure, clock.times)


def passes(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """The steps in their order, as many together as one pass of the network takes; a larger one alone."""
    shared = list[Step]()
    for step in steps:
        if shared and sum(each.count for each in shared) + step.count > step.part.pipeline.tiles_per_pass:
            yield shared
            shared = []
        shared.append(step)
    if shared:
        yield shared


def _score(steps: Sequence[Step], clock: Clock) -> Iterator[Part]:
    """Makes one pass, and yields the parts that end with it."""
    ready, inputs = list[Step](), list[ModelInputs]()
    for step in steps:
        if step.part.failure is None:
            with step.part.fails_alone():
                inputs.append(step.part.cut(step))
                ready.append(step)
            if step.part.is_done:
                yield step.part
    layers = _layers(ready, inputs)
    clock.embed_s += clock.lap_s()
    for step, own_layers in zip(ready, layers, strict=True):
        part = step.part
        if part.failure is None:
            with part.fails_alone():
                patches = part.pipeline.patch_vectors(own_layers, step.tiles)
                clock.embed_s += clock.lap_s()
                part.search(step, patches)
                clock.search_s += clock.lap_s()
            if part.is_done:
                yield part


def _layers(steps: Sequence[Step], inputs: Sequence[ModelInputs]) -> list[tuple[Tensor, ...]]:
    """The network's layers of each step, from what it sees of them."""
    if not steps:
        return []
    runtime = steps[0].part.pipeline.runtime
    layers = runtime.layers(inputs[0] if len(inputs) == 1 else np.concatenate(inputs))
    synchronize(runtime.device)
    stops = accumulate((len(each) for each in inputs), initial=0)
    return [tuple(layer[start:stop] for layer in layers) for start, stop in pairwise(stops)]
