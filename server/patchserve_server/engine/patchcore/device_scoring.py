"""Scores batches on a GPU: one transfer in and one out for each pass of the network, and no wait in between.

What a batch contains never decides what is launched. So the device always has work, while the next batch is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import ScoredPart
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.backbone.devices import Stopwatch, memory_error
from patchserve_server.engine.patchcore.batch_scoring import Clock, Part, Step, passes
from patchserve_server.engine.patchcore.device_outcome import Outcome, Searched
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.search.bank_index import BankIndex


@dataclass(slots=True, eq=False, kw_only=True)
class DevicePart(Part):
    """The model inputs of one reference, and what is on the device of them."""

    plan: DevicePlan
    on_device: dict[int, Tensor] = field(default_factory=dict)  # covered images by the number of the first
    searched: list[Searched] = field(default_factory=list)  # of images that still have tiles to search

    @contextmanager
    def fails_alone(self) -> Iterator[None]:
        """As that of `Part`. But too little memory is the whole pass's, which is divided then."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - its caller gets it
            self.failure = error

    def going_back(self) -> Callable[[], None]:
        """What forgets all that is found from now on."""
        on_device, searched, scores = dict(self.on_device), list(self.searched), list(self.scores)

        def go_back() -> None:
            self.on_device, self.searched, self.scores = on_device, searched, scores

        return go_back

    @property
    def images_per_step(self) -> int:
        """As many as have all tiles of a group in one pass."""
        return max(1, self.pipeline.tiles_per_pass // max(len(tiles) for tiles in self.pipeline.tile_groups))


@torch.inference_mode()
def score_on_device(parts: Sequence[DevicePart]) -> Iterator[ScoredPart]:
    """As `score_parts`, for references whose pipelines have one `DeviceRuntime`."""
    clock = Clock()
    by_number = {part.number: part for part in parts}
    steps = (step for part in sorted(parts, key=lambda part: part.index.nbytes) for step in part.steps())
    for shared in passes(steps):
        pairs = [(by_number[step.part.number], step) for step in shared]
        _DevicePass(pairs, clock).run()
        for part in dict.fromkeys(part for part, _ in pairs):
            if part.is_done:
                yield ScoredPart(part.number, part.scores if part.failure is None else part.failure, clock.times)


@torch.inference_mode()
def warm_up(plan: DevicePlan, index: BankIndex | PatchSubspace) -> None:
    """Captures the passes that a reference needs, and searches once for each number of images."""
    plan.runtime.warm_up(plan.pipeline.tiling.tile_shape, plan.pipeline.tiles_per_pass)
    sides_px = plan.pipeline.shape.sides_px
    for size in plan.runtime.sizes_up_to(plan.pipeline.images_per_pass):
        images = np.zeros((size, *sides_px, 3), np.uint8)
        list(score_on_device([DevicePart(0, plan.pipeline, index, images, plan=plan)]))


class _DevicePass:
    """One pass of the network for steps of several parts, from their images to their scores."""

    def __init__(self, steps: Sequence[tuple[DevicePart, Step]], clock: Clock) -> None:
        self._steps = [(part, step) for part, step in steps if part.failure is None]
        self._clock = clock
        self._searched = list[Searched]()
        self._ended = list[_Ended]()

    def run(self) -> None:
        """Makes the pass. If the device has too little memory for it, each step makes its own."""
        steps, returns = list(self._steps), [part.going_back() for part in self._parts]
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            if len(steps) == 1:
                steps[0][0].failure = memory_error(error)
                return
            for go_back in returns:
                go_back()
            for pair in steps:
                _DevicePass([pair], self._clock).run()

    @property
    def _parts(self) -> Iterator[DevicePart]:
        yield from dict.fromkeys(part for part, _ in self._steps)

    def _run(self) -> None:
        if not self._steps:
            return
        runtime = self._steps[0][0].plan.runtime
        watch = Stopwatch(runtime.device)
        self._send(runtime)
        self._embed_and_search(runtime, watch)
        self._receive(runtime)
        embed_s, search_s = watch.laps_s()
        self._clock.embed_s += embed_s
        self._clock.search_s += search_s

    def _send(self, runtime: DeviceRuntime) -> None:
        """Copies the images whose first tiles these are."""
        first = [(part, step) for part, step in self._steps if step.is_first]
        arrays = list[NDArray[np.uint8]]()
        for part, step in list(first):
            with part.fails_alone():
                arrays.append(part.pipeline.checked(part.inputs[step.images.start : step.images.stop]))
                continue
            first.remove((part, step))
        self._drop_failed()
        for (part, step), images in zip(first, runtime.transfers.to_device(arrays) if arrays else (), strict=True):
            part.on_device[step.images.start] = part.plan.cover(images)

    def _embed_and_search(self, runtime: DeviceRuntime, watch: Stopwatch) -> None:
        if not self._steps:
            return
        seen = [part.plan.cut(part.on_device[step.images.start], step.tiles) for part, step in self._steps]
        layers = runtime.layers_of(seen[0] if len(seen) == 1 else torch.cat(seen))
        watch.lap()
        stops = accumulate((len(each) for each in seen), initial=0)
        vectors = dict[bool, Tensor]()  # of all tiles of the pass: references share what they do alike
        for (part, step), (start, stop) in zip(self._steps, pairwise(stops), strict=True):
            with part.fails_alone():
                pipeline = part.pipeline
                if pipeline.is_paper not in vectors:
                    vectors[pipeline.is_paper] = pipeline.vectors_of_tiles(layers)
                patches = pipeline.tiling.core(vectors[pipeline.is_paper][start:stop], step.tiles)
                searched = Searched.of(part.plan, step, patches)
                self._searched.append(searched)
                part.searched.append(searched)
                if step.is_last:
                    self._ended.append(_Ended(part, part.searched, Outcome.of(part.plan, part.searched)))
                    part.searched = []
                    del part.on_device[step.images.start]
        self._drop_failed()

    def _drop_failed(self) -> None:
        self._steps = [(part, step) for part, step in self._steps if part.failure is None]

    def _receive(self, runtime: DeviceRuntime) -> None:
        """Copies the scores of the images that are done, and how many queries are unresolved."""
        searched, ended = self._searched, self._ended
        counts = [*(one.unresolved_count for one in searched), *(end.outcome.unresolved_count for end in ended)]
        results = [tensor for end in ended for tensor in (end.outcome.image_scores, end.outcome.maps)]
        copied = iter(runtime.transfers.to_host([*(count for count in counts if count is not None), *results]))
        is_uncertain = [count is not None and bool(next(copied)) for count in counts]
        unresolved = [one for one, is_one in zip(searched, is_uncertain, strict=False) if is_one]
        doubtful = [end for end, is_one in zip(ended, is_uncertain[len(searched) :], strict=True) if is_one]
        for one in unresolved:
            one.resolve()
        for end, scores, maps in zip(ended, copied, copied, strict=True):
            outcome = [scores, maps]
            if end in doubtful or any(one in unresolved for one in end.searched):
                exact = Outcome.of(end.part.plan, end.searched, is_certain=True)
                outcome = runtime.transfers.to_host([exact.image_scores, exact.maps])
            end.part.scores += [RawScores(float(score), one) for score, one in zip(*outcome, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class _Ended:
    """Images whose tiles are all searched."""

    part: DevicePart
    searched: Sequence[Searched]
    outcome: Outcome
