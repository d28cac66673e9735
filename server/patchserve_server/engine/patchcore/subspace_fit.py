"""Builds and calibrates the subspace of a reference from its images, one image in memory at a time."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.reference import Calibration
from patchserve_server.engine.patchcore.augmented_views import AugmentedViews
from patchserve_server.engine.patchcore.calibration_bank import first_equal_images, rounding_of
from patchserve_server.engine.patchcore.leave_one_out import MIN_IMAGES
from patchserve_server.engine.patchcore.patch_scores import PatchScores
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace, PatchSums
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.reference_views import View
from patchserve_server.engine.patchcore.thresholds import (
    NormalScore,
    augmented_view_thresholds,
    leave_one_out_thresholds,
)

MAX_FOLDS = 16
"""How many subspaces leave-one-out fits at most. Of more images, those of one fold are left out together."""
_MATRICES_OF_A_FIT = 5  # the sums of all folds, those without one, their covariance, its directions and a copy
_WHITE = np.uint8(255)


@dataclass(frozen=True, slots=True, eq=False)
class SubspaceFit:
    """The sums over the patches of a reference. Equal images count as one."""

    pipeline: Pipeline
    inputs: ModelInputs  # (N, H, W, 3), masked
    images: Sequence[int]  # the distinct images: the number of the first of equal ones
    folds: Sequence[PatchSums]  # of images[0::F], images[1::F], ...

    @classmethod
    def of(cls, pipeline: Pipeline, inputs: ModelInputs, views: Sequence[View], progress: Progress) -> SubspaceFit:
        """Embeds these views of each distinct one of the masked inputs (N, H, W, 3), and keeps no vectors."""
        images = sorted(set(first_equal_images(inputs).tolist()))
        positions, folds = {view: _normal_positions(pipeline, view) for view in views}, list[PatchSums]()
        for done, image in enumerate(images):
            of_views = (_sums_of(pipeline, view.of(inputs[image])[None], positions[view]) for view in views)
            sums = functools.reduce(operator.add, of_views)
            if done < MAX_FOLDS:
                folds.append(sums)
            else:
                folds[done % MAX_FOLDS] += sums
            progress(LoadStage.EMBED, done + 1, len(images))
        return cls(pipeline, inputs, images, folds)

    @property
    def sums(self) -> PatchSums:
        """Over all images."""
        return functools.reduce(operator.add, self.folds)

    def calibrate(self, subspace: PatchSubspace, progress: Progress) -> Calibration:
        """Compute both thresholds. No reference image scores above the image threshold.

        With three or more distinct images, each is scored against the subspace of the images that are not in its fold.
        With fewer, augmented views are scored against the whole subspace.

        Args:
            subspace: fitted to all sums.
            progress: called with the number of scored images.
        """
        progress(LoadStage.CALIBRATE, 0, len(self.images))
        rounding = rounding_of(self.pipeline.runtime)
        smallest = rounding * self.sums.root_mean_square or rounding
        if len(self.images) < MIN_IMAGES:
            scores = AugmentedViews(self.pipeline, self.images, subspace, self.inputs).scores(progress)
            return augmented_view_thresholds(scores, smallest)
        left_out, pristine = zip(*self._leave_one_out(subspace, progress), strict=True)
        highest = max(pristine) * (1 + rounding)
        return leave_one_out_thresholds(left_out, highest, smallest, self.pipeline.options.false_alarm_rate)

    def _leave_one_out(self, subspace: PatchSubspace, progress: Progress) -> Iterator[tuple[NormalScore, float]]:
        """The score of each distinct image without its fold, and its image score with it."""
        total, done = self.sums, 0
        for number, fold in enumerate(self.folds):
            without = PatchSubspace.fit(total - fold)
            for image in self.images[number :: len(self.folds)]:
                yield self._score(image, without, subspace)
                done += 1
                progress(LoadStage.CALIBRATE, done, len(self.images))

    def _score(self, image: int, without: PatchSubspace, whole: PatchSubspace) -> tuple[NormalScore, float]:
        """The scores of one image against both subspaces. It is embedded once, a group of tiles at a time."""
        pipeline, subspaces = self.pipeline, (without, whole)
        parts = [list[PatchScores]() for _ in subspaces]
        for tiles in pipeline.tile_groups:
            patches = pipeline.embed(self.inputs[image : image + 1], tiles)
            positions = pipeline.tiling.positions(tiles).to(patches.device)
            for scores, subspace in zip(parts, subspaces, strict=True):
                scores.append(pipeline.scores_against(patches, subspace, positions))
        left_out, pristine = map(PatchScores.join, parts)
        (normal,), (own,) = pipeline.image_scores(left_out, without), pipeline.scores_without_maps(pristine, whole)
        return NormalScore.of(normal), own


def subspace_fit_nbytes(feature_dim: int) -> int:
    """The memory of a fit besides its model inputs: the sums of all folds, and those that a fit works with."""
    return 8 * feature_dim**2 * (MAX_FOLDS + _MATRICES_OF_A_FIT)


def _sums_of(pipeline: Pipeline, image: ModelInputs, counted: Tensor) -> PatchSums:
    """The sums over the patches of an image (1, H, W, 3) that count: (P,) bool. It is embedded as in `_score`."""
    parts = (
        PatchSums.of(pipeline.embed(image, tiles)[0, counted[pipeline.tiling.positions(tiles)]])
        for tiles in pipeline.tile_groups
    )
    return functools.reduce(operator.add, parts)


def _normal_positions(pipeline: Pipeline, view: View) -> Tensor:
    """Which patches (P,) bool of a view are fitted: those that count, and their neighbors, for the border of the map.

    All others are covered. They would only fill the subspace with the difference between the item and its cover.
    """
    roi_mask, grid = pipeline.roi_mask, pipeline.grid
    if roi_mask is None:
        return torch.ones(grid[0] * grid[1], dtype=torch.bool)
    counted = view.of(roi_mask.patches.reshape(*grid, 1).repeat(3, axis=2).astype(np.uint8) * _WHITE)[..., 0]
    return torch.from_numpy(cv2.dilate(counted, np.ones((3, 3), np.uint8)).ravel() > _WHITE // 2)
