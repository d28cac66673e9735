"""What a GPU has found for some images, until it is known whether that is certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchserve_server.engine.patchcore.batch_scoring import Step
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.patch_scores import Neighbors, PatchScores
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.scoring import REWEIGHTING_NEIGHBORS, reweighted_score
from patchserve_server.engine.search.device_search import DeviceIndex, search_on_device


@dataclass(slots=True, eq=False)
class Searched:
    """What one step found."""

    plan: DevicePlan
    step: Step
    patches: Tensor  # (b, P, D) float32
    neighbors: Neighbors | None  # None: of a subspace
    is_unresolved: Tensor | None  # (b * P,) bool
    scores: PatchScores

    @classmethod
    def of(cls, plan: DevicePlan, step: Step, patches: Tensor) -> Searched:
        group, pipeline = plan.groups[tuple(step.tiles)], plan.pipeline
        if isinstance(plan.bank, PatchSubspace):
            scores = pipeline.scores_against(patches, plan.bank, group.positions)
            return cls(plan, step, patches, None, None, scores)
        images, count, dim = patches.shape
        is_complete = pipeline.options.search_radius is None  # it finds as many rows as the bank has
        near = None if is_complete else pipeline.near(group.positions.repeat(images))
        found = search_on_device(patches.view(-1, dim), plan.bank, pipeline.neighbor_count, near)
        distances, rows = (each.view(images, count, -1) for each in (found.distances, found.rows))
        neighbors = Neighbors(distances, rows, is_complete)
        scores = pipeline.patch_scores(neighbors, patches, plan.bank.index, group.positions, group.counted)
        return cls(plan, step, patches, neighbors, found.is_unresolved, scores)

    @property
    def unresolved_count(self) -> Tensor | None:
        """() float32; None: there can be none."""
        return None if self.is_unresolved is None else self.is_unresolved.sum(dtype=torch.float32)

    def resolve(self) -> None:
        """Searches again for the queries that are unresolved, and waits for them."""
        plan = self.plan
        if self.neighbors is None or self.is_unresolved is None or isinstance(plan.bank, PatchSubspace):
            return
        group, index = plan.groups[tuple(self.step.tiles)], plan.bank.index
        queries = self.is_unresolved.nonzero()[:, 0]
        images, count, dim = self.patches.shape
        places = group.positions.repeat(images)[queries]
        distances, rows = plan.pipeline.search_places(self.patches.view(-1, dim)[queries], index, places)
        neighbors = replace(self.neighbors, is_complete=False)  # a distance may be infinite
        neighbors.distances.view(images * count, -1)[queries] = distances
        neighbors.rows.view(images * count, -1)[queries] = rows
        self.scores = plan.pipeline.patch_scores(neighbors, self.patches, index, group.positions, group.counted)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The scores of some images of a part, on the device."""

    image_scores: Tensor  # (b,) float32
    maps: Tensor  # (b, h, w) float32
    unresolved_count: Tensor | None  # () float32, of image scores; None: there can be none

    @classmethod
    def of(cls, plan: DevicePlan, searched: Sequence[Searched], *, is_certain: bool = False) -> Outcome:
        """`is_certain`: wait for the device wherever that is needed to be exact."""
        joined = PatchScores.join([one.scores for one in searched])
        maps = plan.maps(joined.distances)
        if joined.worst is not None and isinstance(plan.bank, DeviceIndex):
            bank, search, doubts = plan.bank, plan.pipeline.parallel_search, list[Tensor]()

            def nearest(support: Tensor) -> tuple[Tensor, Tensor]:
                if is_certain:
                    return search.nearest(support, bank.index, REWEIGHTING_NEIGHBORS)
                found = search_on_device(support, bank, REWEIGHTING_NEIGHBORS)
                doubts.append(found.is_unresolved.sum(dtype=torch.float32))
                return found.distances, found.rows

            scores = reweighted_score(joined.worst, bank.index, nearest)
            return cls(scores, maps, doubts[0] if doubts else None)
        distances, spacing = joined.distances, joined.spacing
        if plan.counted is not None:
            distances, spacing = distances.index_select(1, plan.counted), spacing.index_select(1, plan.counted)
        return cls(plan.pipeline.scores_of_counted(distances, spacing), maps, None)
