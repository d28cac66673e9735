"""What a GPU has found for some images, until it is known whether that is certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchserve_server.engine.patchcore.batch_scoring import Step
from patchserve_server.engine.patchcore.device_plan import DevicePlan, TileGroup
from patchserve_server.engine.patchcore.patch_scores import Neighbors, PatchScores, WorstPatches
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.scoring import REWEIGHTING_NEIGHBORS, reweighted_score
from patchserve_server.engine.search.device_search import DeviceIndex, concatenated, search_on_device


@dataclass(frozen=True, slots=True, eq=False)
class StepPatches:
    """What the network saw in one step."""

    plan: DevicePlan
    step: Step
    patches: Tensor  # (b, P, D) float32

    @property
    def group(self) -> TileGroup:
        return self.plan.groups[tuple(self.step.tiles)]

    @property
    def queries(self) -> Tensor:
        """(b * P, D)."""
        return self.patches.flatten(0, 1)

    @property
    def bank(self) -> DeviceIndex:
        if not isinstance(self.plan.bank, DeviceIndex):
            raise TypeError("A subspace has no rows.")
        return self.plan.bank

    def scores(self, neighbors: Neighbors) -> PatchScores:
        group = self.group
        return self.plan.pipeline.patch_scores(neighbors, self.patches, self.bank.index, group.positions, group.counted)


@dataclass(slots=True, eq=False)
class Searched:
    """What was found for one step, or at once for steps whose plans have one `joint_key`."""

    steps: Sequence[StepPatches]
    neighbors: Neighbors | None  # of all images; None: of a subspace
    is_unresolved: Tensor | None  # (b * P,) bool
    scores: PatchScores

    @classmethod
    def of(cls, steps: Sequence[StepPatches]) -> Searched:
        first, pipeline = steps[0], steps[0].plan.pipeline
        if isinstance(first.plan.bank, PatchSubspace):
            scores = pipeline.scores_against(first.patches, first.plan.bank, first.group.positions)
            return cls(steps, None, None, scores)
        images, count = sum(len(one.patches) for one in steps), first.patches.shape[1]
        is_complete = pipeline.options.search_radius is None  # it finds as many rows as the bank has
        near = None if is_complete else pipeline.near(first.group.positions.repeat(images))
        found = search_on_device([(one.queries, one.bank) for one in steps], pipeline.neighbor_count, near)
        distances, rows = (each.view(images, count, -1) for each in (found.distances, found.rows))
        neighbors = Neighbors(distances, rows, is_complete)
        return cls(steps, neighbors, found.is_unresolved, _patch_scores(steps, neighbors))

    @property
    def unresolved_counts(self) -> Tensor | None:
        """(B,) float32, of the queries of each image; None: there can be none."""
        if self.neighbors is None or self.is_unresolved is None:
            return None
        return self.is_unresolved.view(len(self.neighbors.rows), -1).sum(dim=1, dtype=torch.float32)

    @property
    def images(self) -> list[slice]:
        """The images of each step."""
        stops = accumulate((len(one.patches) for one in self.steps), initial=0)
        return [slice(*pair) for pair in pairwise(stops)]

    def steps_with(self, counts: NDArray[np.float32] | None) -> set[int]:
        """The numbers of the steps that have an image whose count (B,) is not 0."""
        return set() if counts is None else {at for at, images in enumerate(self.images) if counts[images].any()}

    def of_step(self, number: int) -> Searched:
        """What was found for one step."""
        if len(self.steps) == 1 or self.neighbors is None:
            return self
        images, step = self.images[number], self.steps[number]
        found = Neighbors(self.neighbors.distances[images], self.neighbors.rows[images], self.neighbors.is_complete)
        return Searched([step], found, None, step.scores(found))

    def resolve(self, counts: NDArray[np.float32] | None) -> set[int]:
        """Searches again for the queries that are unresolved, and waits for them. `counts`: `unresolved_counts`.

        Returns the numbers of the steps that have some.
        """
        numbers, found = self.steps_with(counts), self.neighbors
        if found is None or self.is_unresolved is None or not numbers:
            return set()
        is_unresolved = self.is_unresolved.view(len(found.rows), -1)
        for number in numbers:
            one, images = self.steps[number], self.images[number]
            queries = is_unresolved[images].flatten().nonzero()[:, 0]
            places = one.group.positions.repeat(len(one.patches))[queries]
            distances, rows = (each[images].flatten(0, 1) for each in (found.distances, found.rows))
            distances[queries], rows[queries] = one.plan.pipeline.search_places(
                one.queries[queries], one.bank.index, places
            )
        self.neighbors = replace(found, is_complete=False)  # a distance may be infinite
        self.scores = _patch_scores(self.steps, self.neighbors)
        return numbers


def _patch_scores(steps: Sequence[StepPatches], neighbors: Neighbors) -> PatchScores:
    counts = [len(one.patches) for one in steps]
    found = zip(torch.split(neighbors.distances, counts), torch.split(neighbors.rows, counts), strict=True)
    each = [
        one.scores(Neighbors(distances, rows, neighbors.is_complete))
        for one, (distances, rows) in zip(steps, found, strict=True)
    ]
    return PatchScores.stack(each)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The scores of some images, on the device."""

    image_scores: Tensor  # (b,) float32
    maps: Tensor  # (b, h, w) float32
    unresolved_counts: Tensor | None  # (b,) float32, 0 or 1; None: there can be none

    @classmethod
    def of(cls, searched: Sequence[Searched], *, is_certain: bool = False) -> Outcome:
        """Of all tiles of images. `is_certain`: wait for the device wherever that is needed to be exact."""
        joined, steps = PatchScores.join([one.scores for one in searched]), searched[0].steps
        plan = steps[0].plan
        maps = plan.maps(joined.distances)
        if joined.worst is not None:
            return _reweighted(joined.worst, maps, steps, is_certain=is_certain)
        distances, spacing = joined.distances, joined.spacing
        if plan.counted is not None:
            distances, spacing = distances.index_select(1, plan.counted), spacing.index_select(1, plan.counted)
        return cls(plan.pipeline.scores_of_counted(distances, spacing), maps, None)


def _reweighted(worst: WorstPatches, maps: Tensor, steps: Sequence[StepPatches], *, is_certain: bool) -> Outcome:
    """The outcome of PAPER, which searches once more."""
    counts, doubts = [len(one.patches) for one in steps], list[Tensor]()

    def vectors_of(rows: Tensor) -> Tensor:
        of_steps = zip(steps, torch.split(rows, counts), strict=True)
        return concatenated([one.bank.index.patches[some] for one, some in of_steps])

    def nearest(support: Tensor) -> tuple[Tensor, Tensor]:
        asked = list(zip(torch.split(support, counts), (one.bank for one in steps), strict=True))
        if is_certain:
            search = steps[0].plan.pipeline.parallel_search
            found = [search.nearest(some, bank.index, REWEIGHTING_NEIGHBORS) for some, bank in asked]
            distances, rows = (concatenated(each) for each in zip(*found, strict=True))
            return distances, rows
        neighbors = search_on_device(asked, REWEIGHTING_NEIGHBORS)
        doubts.append(neighbors.is_unresolved.float())
        return neighbors.distances, neighbors.rows

    scores = reweighted_score(worst, vectors_of, nearest)
    return Outcome(scores, maps, doubts[0] if doubts else None)
