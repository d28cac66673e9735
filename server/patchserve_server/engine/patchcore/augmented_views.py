"""Augmented views: slightly altered copies of each reference image, scored against the whole bank."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray
from PIL import Image

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.scorer import score_inputs
from patchserve_server.engine.patchcore.thresholds import NormalScore
from patchserve_server.engine.search.bank_index import BankIndex

_SHIFTS = ((1, 1), (-1, 1), (1, -1), (-1, -1))
_SHIFT_SHARE = 2 / 224  # of the longer side
_ROTATIONS_DEG = (-1.0, 1.0)
_GAINS = (0.85, 1.15)
_JPEG_QUALITY = 75


@dataclass(frozen=True, slots=True, eq=False)
class AugmentedViews:
    """The scores of augmented views, for references with too few images for leave-one-out."""

    pipeline: Pipeline
    images: Sequence[int]  # the distinct images
    index: BankIndex | PatchSubspace  # of all images
    inputs: ModelInputs  # (N, H, W, 3), masked

    def scores(self, progress: Progress) -> list[NormalScore]:
        """Each view of each distinct image against the whole bank."""
        pipeline, scores = self.pipeline, list[NormalScore]()
        for done, image in enumerate(self.images, 1):
            for view in augmented_views(self.inputs[image]):
                progress(LoadStage.CALIBRATE, done - 1, len(self.images))  # also ends a load whose caller has left
                scores += map(NormalScore.of, score_inputs(pipeline, view[None], self.index)[0])
            progress(LoadStage.CALIBRATE, done, len(self.images))
        return scores


def augmented_views(image: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """The image (H, W, 3) unchanged, then slightly shifted, rotated, darker, brighter and compressed.

    The changes are as large as between two images of the same item from a fixed camera. Differences between items
    cannot be learned from a single image.
    """
    height, width = image.shape[:2]
    center, shift_px = ((width - 1) / 2, (height - 1) / 2), _SHIFT_SHARE * max(height, width)
    yield image
    for right, down in _SHIFTS:
        yield _warp(image, np.array([[1.0, 0.0, right * shift_px], [0.0, 1.0, down * shift_px]]))
    for rotation in _ROTATIONS_DEG:
        yield _warp(image, cv2.getRotationMatrix2D(center, rotation, 1.0))
    for gain in _GAINS:
        yield cv2.convertScaleAbs(image, alpha=gain).astype(np.uint8, copy=False)
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    yield np.array(Image.open(jpeg))


def _warp(image: NDArray[np.uint8], matrix: MatLike) -> NDArray[np.uint8]:
    size_px = (image.shape[1], image.shape[0])
    warped = cv2.warpAffine(image, matrix, size_px, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return warped.astype(np.uint8, copy=False)
