"""Scores batches on a GPU: one transfer in and one out for each pass of the network, and no wait in between.

Of files, the transfer in is that of the device's decoder, which has a stream of its own: only for it is waited there.

What a batch contains never decides what is launched. So the device always has work, while the next batch is decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.ports import ScoredPart
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.backbone.devices import Stopwatch, memory_error
from patchserve_server.engine.codec import Codec
from patchserve_server.engine.patchcore.batch_scoring import Clock, Part, Step, passes
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.patch_scores import Neighbors, PatchScores
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.scoring import REWEIGHTING_NEIGHBORS, reweighted_score
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.device_search import DeviceIndex, search_on_device


@dataclass(slots=True, eq=False, kw_only=True)
class DevicePart(Part):
    """The images of one reference, and what is on the device of them."""

    plan: DevicePlan
    undecoded: set[int] = field(default_factory=set)  # the numbers of files
    on_device: dict[int, Tensor] = field(default_factory=dict)  # covered images (b, H, W, 3) by the number of the first
    searched: list[_Searched] = field(default_factory=list)  # of images that still have tiles to search

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
        on_device, undecoded = dict(self.on_device), set(self.undecoded)
        searched, scores = list(self.searched), list(self.scores)

        def go_back() -> None:
            self.on_device, self.undecoded, self.searched, self.scores = on_device, undecoded, searched, scores

        return go_back

    @property
    def has_files(self) -> bool:
        return not isinstance(self.inputs, np.ndarray)

    def files(self, images: range) -> Sequence[JpegFile]:
        return [file for file in self.inputs[images.start : images.stop] if isinstance(file, JpegFile)]

    def take(self, images: range, decoded: Sequence[Tensor | DeviceCodecError]) -> None:
        """What the files of these images are on the device, (H, W, 3) each."""
        pixels = [one for one in decoded if isinstance(one, Tensor)]
        self.undecoded |= {number for number, one in zip(images, decoded, strict=True) if not isinstance(one, Tensor)}
        if pixels:
            self.on_device[images.start] = self.plan.cover(torch.stack(pixels))

    def has_none_of(self, step: Step) -> bool:
        """Whether no file of these images is decoded."""
        return self.has_files and step.images.start not in self.on_device

    @property
    def is_done(self) -> bool:
        return self.failure is not None or len(self.scores) + len(self.undecoded) == len(self.inputs)

    @property
    def outcome(self) -> Sequence[RawScores] | Exception:
        return self.scores if self.failure is None else self.failure

    @property
    def images_per_step(self) -> int:
        """As many as have all tiles of a group in one pass."""
        return max(1, self.pipeline.tiles_per_pass // max(len(tiles) for tiles in self.pipeline.tile_groups))


@dataclass(slots=True, eq=False)
class _Searched:
    """What a step found, until it is known whether that is certain."""

    plan: DevicePlan
    step: Step
    patches: Tensor  # (b, P, D) float32
    neighbors: Neighbors | None  # None: of a subspace
    is_unresolved: Tensor | None  # (b * P,) bool
    scores: PatchScores

    @classmethod
    def of(cls, plan: DevicePlan, step: Step, patches: Tensor) -> _Searched:
        group, pipeline = plan.groups[tuple(step.tiles)], plan.pipeline
        if isinstance(plan.bank, PatchSubspace):
            scores = pipeline.scores_against(patches, plan.bank, group.positions)
            return cls(plan, step, patches, None, None, scores)
        images, count, dim = patches.shape
        near = pipeline.near(group.positions.repeat(images))
        found = search_on_device(patches.view(-1, dim), plan.bank, pipeline.neighbor_count, near)
        neighbors = Neighbors(found.distances.view(images, count, -1), found.rows.view(images, count, -1))
        scores = pipeline.patch_scores(neighbors, patches, plan.bank.index, group.positions, group.counted)
        return cls(plan, step, patches, neighbors, found.is_unresolved, scores)

    @property
    def unresolved_count(self) -> Tensor:
        """() float32."""
        if self.is_unresolved is None:
            return self.patches.new_zeros(())
        return self.is_unresolved.sum().float()

    def resolve(self) -> None:
        """Searches again for the queries that are unresolved, and waits for them."""
        plan, neighbors = self.plan, self.neighbors
        if neighbors is None or self.is_unresolved is None or isinstance(plan.bank, PatchSubspace):
            return
        group, index = plan.groups[tuple(self.step.tiles)], plan.bank.index
        queries = self.is_unresolved.nonzero()[:, 0]
        images, count, dim = self.patches.shape
        places = group.positions.repeat(images)[queries]
        distances, rows = plan.pipeline.search_places(self.patches.view(-1, dim)[queries], index, places)
        neighbors.distances.view(images * count, -1)[queries] = distances
        neighbors.rows.view(images * count, -1)[queries] = rows
        self.scores = plan.pipeline.patch_scores(neighbors, self.patches, index, group.positions, group.counted)


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """The scores of some images of a part, on the device."""

    image_scores: Tensor  # (b,) float32
    maps: Tensor  # (b, h, w) float32
    unresolved_count: Tensor  # () float32, of image scores

    @classmethod
    def of(cls, plan: DevicePlan, searched: Sequence[_Searched], *, is_certain: bool = False) -> _Outcome:
        """`is_certain`: wait for the device wherever that is needed to be exact."""
        joined = PatchScores.join([one.scores for one in searched])
        maps, none = plan.maps(joined.distances), joined.distances.new_zeros(())
        if joined.worst is not None and isinstance(plan.bank, DeviceIndex):
            bank, search, doubts = plan.bank, plan.pipeline.parallel_search, [none]

            def nearest(support: Tensor) -> tuple[Tensor, Tensor]:
                if is_certain:
                    return search.nearest(support, bank.index, REWEIGHTING_NEIGHBORS)
                found = search_on_device(support, bank, REWEIGHTING_NEIGHBORS)
                doubts[0] = found.is_unresolved.sum().float()
                return found.distances, found.rows

            return cls(reweighted_score(joined.worst, bank.index, nearest), maps, doubts[0])
        distances, spacing = joined.distances, joined.spacing
        if plan.counted is not None:
            distances, spacing = distances.index_select(1, plan.counted), spacing.index_select(1, plan.counted)
        return cls(plan.pipeline.scores_of_counted(distances, spacing), maps, none)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.image_scores, self.maps, self.unresolved_count


@torch.inference_mode()
def score_on_device(parts: Sequence[DevicePart], codec: Codec | None = None) -> Iterator[ScoredPart]:
    """As `score_parts`, for references whose pipelines have one `DeviceRuntime`. `codec`: if a part has files."""
    clock = Clock()
    waiting = {part.number: part for part in parts}
    steps = (step for part in sorted(parts, key=lambda part: part.index.nbytes) for step in part.steps())
    for shared in passes(steps):
        pairs = [(waiting[step.part.number], step) for step in shared if step.part.number in waiting]
        _DevicePass(pairs, clock, codec).run()
        for part in dict.fromkeys(part for part, _ in pairs):
            if part.is_done:
                del waiting[part.number]
                yield ScoredPart(part.number, part.outcome, clock.times, frozenset(part.undecoded))


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

    def __init__(self, steps: Sequence[tuple[DevicePart, Step]], clock: Clock, codec: Codec | None) -> None:
        self._steps = [(part, step) for part, step in steps if part.failure is None]
        self._clock, self._codec = clock, codec
        self._searched = list[_Searched]()
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
                _DevicePass([pair], self._clock, self._codec).run()

    @property
    def _parts(self) -> Iterator[DevicePart]:
        yield from dict.fromkeys(part for part, _ in self._steps)

    def _run(self) -> None:
        if not self._steps:
            return
        runtime = self._steps[0][0].plan.runtime
        self._decode()
        watch = Stopwatch(runtime.device)
        self._send(runtime)
        if not self._steps:
            return
        self._embed_and_search(runtime, watch)
        self._receive(runtime)
        embed_s, search_s = watch.laps_s()
        self._clock.embed_s += embed_s
        self._clock.search_s += search_s

    def _decode(self) -> None:
        """Decodes the files whose first tiles these are. It may wait, but only for the decoder of the device."""
        begun_s = time.perf_counter()
        files = [(part, step.images, part.files(step.images)) for part, step in self._first if part.has_files]
        for shape in dict.fromkeys(part.pipeline.shape for part, _, _ in files):
            of_shape = [each for each in files if each[0].pipeline.shape == shape]
            decoded = iter(self._decoded([file for _, _, some in of_shape for file in some], shape))
            for part, images, some in of_shape:
                part.take(images, list(islice(decoded, len(some))))
        if files:
            self._clock.decode_s += time.perf_counter() - begun_s
        self._steps = [(part, step) for part, step in self._steps if not part.has_none_of(step)]

    def _decoded(self, files: Sequence[JpegFile], shape: InputShape) -> Sequence[Tensor | DeviceCodecError]:
        if self._codec is None:
            raise TypeError("This detector takes model inputs, and no files.")
        return self._codec.decode(files, shape)

    def _send(self, runtime: DeviceRuntime) -> None:
        """Copies the images whose first tiles these are."""
        sent, arrays = list[tuple[DevicePart, Step]](), list[NDArray[np.uint8]]()
        for part, step in self._first:
            if not part.has_files:
                with part.fails_alone():
                    arrays.append(part.pipeline.checked(part.model_inputs(step.images)))
                    sent.append((part, step))
        self._drop_failed()
        for (part, step), images in zip(sent, runtime.transfers.to_device(arrays) if arrays else (), strict=True):
            part.on_device[step.images.start] = part.plan.cover(images)

    @property
    def _first(self) -> list[tuple[DevicePart, Step]]:
        return [(part, step) for part, step in self._steps if step.is_first]

    def _embed_and_search(self, runtime: DeviceRuntime, watch: Stopwatch) -> None:
        seen = [part.plan.cut(part.on_device[step.images.start], step.tiles) for part, step in self._steps]
        layers = runtime.layers_of(seen[0] if len(seen) == 1 else torch.cat(seen))
        watch.lap()
        stops = accumulate((len(each) for each in seen), initial=0)
        for (part, step), (start, stop) in zip(self._steps, pairwise(stops), strict=True):
            with part.fails_alone():
                own = [layer[start:stop] for layer in layers]
                searched = _Searched.of(part.plan, step, part.pipeline.patch_vectors(own, step.tiles))
                self._searched.append(searched)
                part.searched.append(searched)
                if step.is_last:
                    self._ended.append(_Ended(part, part.searched, _Outcome.of(part.plan, part.searched)))
                    part.searched = []
                    del part.on_device[step.images.start]
        self._drop_failed()

    def _drop_failed(self) -> None:
        self._steps = [(part, step) for part, step in self._steps if part.failure is None]

    def _receive(self, runtime: DeviceRuntime) -> None:
        """Copies the scores of the images that are done, and how many queries are unresolved."""
        counts = [searched.unresolved_count for searched in self._searched]
        found = runtime.transfers.to_host(
            [*counts, *(tensor for ended in self._ended for tensor in ended.outcome.tensors)]
        )
        unresolved = [one for one, count in zip(self._searched, found, strict=False) if count]
        results = list(zip(*[iter(found[len(counts) :])] * 3, strict=True))
        doubtful = [ended for ended, (_, _, count) in zip(self._ended, results, strict=True) if count]
        for searched in unresolved:
            searched.resolve()
        for number, ended in enumerate(self._ended):
            if ended in doubtful or any(searched in unresolved for searched in ended.searched):
                exact = _Outcome.of(ended.part.plan, ended.searched, is_certain=True)
                results[number] = tuple(runtime.transfers.to_host(exact.tensors))
            scores, maps, _ = results[number]
            ended.part.scores += [RawScores(float(score), one) for score, one in zip(scores, maps, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class _Ended:
    """Images whose tiles are all searched."""

    part: DevicePart
    searched: Sequence[_Searched]
    outcome: _Outcome
