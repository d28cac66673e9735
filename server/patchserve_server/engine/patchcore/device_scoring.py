"""Scores batches on a GPU: one transfer in and one out for each pass of the network, and no wait in between.

Of files, the transfer in is that of the device's decoder, which has a stream of its own: only for it is waited there.

What a batch contains never decides what is launched. So the device always has work, while the next batch is decoded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from patchserve_server.engine.backbone.lost_device import end_if_lost
from patchserve_server.engine.codec import Codec
from patchserve_server.engine.patchcore.batch_scoring import Clock, Part, Step, passes
from patchserve_server.engine.patchcore.device_outcome import Outcome, Searched, StepPatches
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.device_search import concatenated

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class DevicePart(Part):
    """The images of one reference, and what is on the device of them."""

    plan: DevicePlan
    undecoded: dict[int, DeviceCodecError] = field(default_factory=dict)  # by the number of the file
    on_device: dict[int, Tensor] = field(default_factory=dict)  # covered images (b, H, W, 3) by the number of the first
    searched: list[Searched] = field(default_factory=list)  # of images that still have tiles to search

    @contextmanager
    def fails_alone(self) -> Iterator[None]:
        """As that of `Part`. But too little memory is the whole pass's, which is divided then."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - its caller gets it
            end_if_lost(self.plan.runtime.device, error)
            self.failure = error

    def going_back(self) -> Callable[[], None]:
        """What forgets all that is found from now on."""
        on_device, undecoded = dict(self.on_device), dict(self.undecoded)
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
        self.undecoded |= {
            at: one for at, one in zip(images, decoded, strict=True) if isinstance(one, DeviceCodecError)
        }
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
                yield ScoredPart(part.number, part.outcome, clock.times, part.undecoded)


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
        self._searched = list[Searched]()
        self._ended = list[_Ended]()

    def run(self) -> None:
        """Makes the pass. If the device has too little memory for it, each step makes its own, or each half of one."""
        steps, returns = list(self._steps), [part.going_back() for part in self._parts]
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            failure = torch.OutOfMemoryError(str(error))  # without its frames, which hold the memory of the pass
        except Exception as error:
            end_if_lost(steps[0][0].plan.runtime.device, error)
            raise
        else:
            return
        self._searched, self._ended = [], []
        divided = steps if len(steps) > 1 else _halves(*steps[0])
        if not divided:
            steps[0][0].failure = memory_error(failure)
            return
        for go_back in returns:
            go_back()
        for pair in divided:
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
        try:
            return self._codec.decode(files, shape)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the CPU decodes these files, and the others go on
            _log.debug("The device failed to decode", exc_info=True)  # the inspector tells it, once a minute
            return [DeviceCodecError(f"{type(error).__name__}: {error}") for _ in files]

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
        layers = runtime.layers_of(concatenated(seen))
        watch.lap()
        stops = accumulate((len(each) for each in seen), initial=0)
        vectors = dict[bool, Tensor]()  # of all tiles of the pass: references share what they do alike
        groups = dict[Hashable, list[_Embedded]]()
        for (part, step), (start, stop) in zip(self._steps, pairwise(stops), strict=True):
            with part.fails_alone():
                pipeline = part.pipeline
                if pipeline.is_paper not in vectors:
                    vectors[pipeline.is_paper] = pipeline.vectors_of_tiles(layers)
                patches = pipeline.tiling.core(vectors[pipeline.is_paper][start:stop], step.tiles)
                key = part.plan.joint_key or (id(part), start)
                groups.setdefault(key, []).append((part, StepPatches(part.plan, step, patches)))
        for group in groups.values():
            self._search(group)
        self._drop_failed()

    def _search(self, group: Sequence[_Embedded]) -> None:
        """Searches at once for steps that are alike; if that fails, for each alone."""
        first, _ = group[0]
        before = first.failure
        with first.fails_alone():
            self._find(group)
            return
        if len(group) > 1:
            first.failure, first.searched = before, []  # the error would hold the memory of them all
            for pair in group:
                self._search([pair])

    def _find(self, group: Sequence[_Embedded]) -> None:
        (first, one), searched = group[0], Searched.of([one for _, one in group])
        first.searched.append(searched)
        if one.step.is_last:
            self._ended.append(_Ended(group, first.searched, Outcome.of(first.searched)))
            first.searched = []
            for part, each in group:
                del part.on_device[each.step.images.start]
        self._searched.append(searched)

    def _drop_failed(self) -> None:
        self._steps = [(part, step) for part, step in self._steps if part.failure is None]

    def _receive(self, runtime: DeviceRuntime) -> None:
        """Copies the scores of the images that are done, and in how many places each image is uncertain."""
        searched, ended = self._searched, self._ended
        counts = [*(one.unresolved_counts for one in searched), *(end.outcome.unresolved_counts for end in ended)]
        results = [tensor for end in ended for tensor in (end.outcome.image_scores, end.outcome.maps)]
        copied = iter(runtime.transfers.to_host([*(count for count in counts if count is not None), *results]))
        uncertain = [None if count is None else next(copied) for count in counts]
        resolved = {id(one): one.resolve(found) for one, found in zip(searched, uncertain, strict=False)}
        for end, doubts, scores, maps in zip(ended, uncertain[len(searched) :], copied, copied, strict=True):
            again = end.searched[0].steps_with(doubts).union(*(resolved.get(id(one), ()) for one in end.searched))
            start = 0
            for number, (part, one) in enumerate(end.group):
                images = slice(start, start := start + len(one.patches))
                outcome = [scores[images], maps[images]]
                if number in again:
                    exact = Outcome.of([each.of_step(number) for each in end.searched], is_certain=True)
                    outcome = runtime.transfers.to_host([exact.image_scores, exact.maps])
                part.scores += [RawScores(float(score), one_map) for score, one_map in zip(*outcome, strict=True)]


_Embedded = tuple[DevicePart, StepPatches]


@dataclass(frozen=True, slots=True, eq=False)
class _Ended:
    """Images whose tiles are all searched."""

    group: Sequence[_Embedded]
    searched: Sequence[Searched]
    outcome: Outcome


def _halves(part: DevicePart, step: Step) -> list[tuple[DevicePart, Step]]:
    """Steps with half of the images each. None: it has one image, or only some tiles of them."""
    start, stop = step.images.start, step.images.stop
    if stop - start == 1 or not (step.is_first and step.is_last):
        return []
    middle = (start + stop) // 2
    return [(part, replace(step, images=images)) for images in (range(start, middle), range(middle, stop))]
