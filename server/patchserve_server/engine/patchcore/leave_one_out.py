"""Leave-one-out: each reference image scored against the rows of all the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.reference import ScoreSpread
from patchserve_server.domain.reference_options import ScoringProfile
from patchserve_server.engine.patchcore.calibration_bank import CalibrationBank
from patchserve_server.engine.patchcore.patch_scores import Neighbors
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.scoring import mean_of_nearest
from patchserve_server.engine.patchcore.thresholds import NormalScore

MIN_IMAGES = 3
_MIN_SPACING = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class LeaveOneOut:
    """The nearest rows of other images for each image. One search; everything else is computed from its result."""

    pipeline: Pipeline
    bank: CalibrationBank
    neighbors: Mapping[int, Neighbors]  # by image

    @classmethod
    def search(cls, pipeline: Pipeline, bank: CalibrationBank, progress: Progress) -> LeaveOneOut:
        neighbors = {}
        for done, image in enumerate(bank.images, 1):
            neighbors[image] = pipeline.search(bank.patches(image), bank.index, bank.group(image))
            progress(LoadStage.CALIBRATE, done, len(bank.images))
        return cls(pipeline, bank, neighbors)

    def with_best_spacing(self) -> LeaveOneOut:
        """The same neighbors on a bank with the spacing of its rows, if the profile uses it.

        VERDICT uses it only where it makes the image scores of the reference more alike: elsewhere it hides damage.
        """
        profile = self.pipeline.options.profile
        if profile is ScoringProfile.PAPER:
            return self
        spaced = replace(self, bank=self.bank.with_spacing(self._spacing()))
        if profile is ScoringProfile.VERDICT and spaced.relative_spread() >= self.relative_spread():
            return self
        return spaced

    def relative_spread(self) -> float:
        """The standard deviation of the image scores, divided by their mean; infinite if a score is."""
        scores = [
            score
            for image, neighbors in self.neighbors.items()
            for score in self._without_maps(image, neighbors, self.bank.group(image))
        ]
        return ScoreSpread.of(scores).relative_stddev if all(map(math.isfinite, scores)) else math.inf

    def normal_scores(self) -> list[NormalScore]:
        """Each image against the rows of all the others."""
        return [
            NormalScore.of(scores)
            for image, neighbors in self.neighbors.items()
            for scores in self.pipeline.raw_scores(
                neighbors, self.bank.patches(image), self.bank.index, self.bank.group(image)
            )
        ]

    def pristine_scores(self) -> list[float]:
        """The image scores against the whole bank, including own rows: what a caller gets who sends an image again."""
        return [
            score
            for image, neighbors in self.neighbors.items()
            for score in self._without_maps(image, self._with_own_rows(image, neighbors))
        ]

    def _without_maps(self, image: int, neighbors: Neighbors, exclude_groups: Tensor | None = None) -> list[float]:
        """The image score of one image, alone: a map takes longer than the score."""
        index = self.bank.index
        scores = self.pipeline.patch_scores(neighbors, self.bank.patches(image), index)
        return self.pipeline.scores_without_maps(scores, index, exclude_groups)

    def _with_own_rows(self, image: int, other_neighbors: Neighbors) -> Neighbors:
        """The nearest rows in the whole bank: those of other images, merged with those of the image itself."""
        pipeline, index = self.pipeline, self.bank.index
        if index.ivf is not None:  # fast, and scoring uses approximate search too
            return pipeline.search(self.bank.patches(image), index)
        own_selected = self.bank.rows_of(image)
        if not len(own_selected):
            return other_neighbors
        own = pipeline.search(self.bank.patches(image), index.subset(own_selected))
        own_rows = torch.where(own.rows < 0, own.rows, own_selected[own.rows.clamp(min=0)])
        rows, order = torch.cat((own_rows, other_neighbors.rows), dim=2).sort(dim=2)  # equal distances by row
        distances = torch.cat((own.distances, other_neighbors.distances), dim=2).gather(2, order)
        distances, order = distances.sort(dim=2, stable=True)
        k = min(other_neighbors.rows.shape[2], len(index))
        return Neighbors(distances[:, :, :k], rows.gather(2, order)[:, :, :k])

    def _spacing(self) -> Tensor:
        """The distance of each selected row (K,) to the nearest rows of other images, relative to the mean of all.

        Rows that were not selected count as neighbors too. If another image has an equal row, the distance is 0; the
        spacing is therefore at least a tenth of the mean.
        """
        bank, index = self.bank, self.bank.index
        if bank.has_all_rows:
            neighbors = self.neighbors.values()
            by_image = torch.cat([mean_of_nearest(one_image.distances) for one_image in neighbors])  # (I, P)
            distances = by_image[torch.searchsorted(torch.tensor(bank.images), bank.first_equal)].flatten()
        else:
            near = None if index.places is None else self.pipeline.near(index.places)
            all_rows = bank.index_of_all_rows()
            distances = mean_of_nearest(self.pipeline.nearest(index.patches, all_rows, index.groups, near)[0])
        mean = distances.mean()
        return distances.clamp(min=_MIN_SPACING * mean) / mean if mean > 0 else torch.ones_like(distances)
