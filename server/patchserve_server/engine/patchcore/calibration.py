"""Thresholds from the reference images alone: what normal images score, and how far above that is anomalous."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev

import cv2
import numpy as np
import torch
from cv2.typing import MatLike
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.engine.patchcore.pipeline import Neighbors, Pipeline, RawScores
from patchserve_server.engine.patchcore.scoring import mean_of_nearest
from patchserve_server.engine.search.exact import BankIndex
from patchserve_server.engine.search.ivf_index import IvfIndex

_LEAST_FOR_LEAVE_ONE_OUT = 3
_NORMAL_SHARE = 0.91
_DEVIATIONS = 1.5
_LEAST_SPACING = 0.1
_ROUNDING = 1e-3

_SHIFTS_PX = ((2.0, 2.0), (-2.0, 2.0), (2.0, -2.0), (-2.0, -2.0))
_TURNS_DEG = (-1.0, 1.0)
_GAINS = (0.85, 1.15)
_JPEG_QUALITY = 75


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """What the reference images tell of themselves: the bank's spacing, and its thresholds."""

    spacing: NDArray[np.float32]  # (K,), above 0
    calibration: Calibration
    lists: IvfIndex | None  # of the bank, where it is searched by them


def calibrate(pipeline: Pipeline, inputs: ModelInputs, vectors: Tensor, kept: Tensor, progress: Progress) -> Normal:
    """Spacing and thresholds of a bank; no image that it was made of exceeds them.

    Equal images count as one. With three or more, each is scored against the rows of all the others; else, or where
    a coreset left too few rows of the others, altered views are scored against the whole bank.

    Args:
        pipeline: the one that made the bank.
        inputs: (N, S, S, 3), the bank's images.
        vectors: (N, P, D) float32, all their vectors.
        kept: (K,) int64, the rows of `vectors.flatten(0, 1)` that are the bank, ascending.
        progress: called with the images scored.
    """
    same_as = _first_equal(inputs)
    progress(LoadStage.CALIBRATE, 0, len(set(same_as.tolist())))  # the lists of a huge bank take some seconds
    bank = _Bank.of(pipeline, same_as, vectors, kept)
    if len(bank.images) >= _LEAST_FOR_LEAVE_ONE_OUT:
        left_out = _left_out(pipeline, bank, progress)
        if not pipeline.is_paper:
            bank = bank.spaced(_spacing(pipeline, bank, left_out))
        normal = [raw for at, found in left_out.items() for raw in bank.judge(pipeline, at, found, excluded=True)]
        if all(math.isfinite(raw.image_score) for raw in normal):
            pristine = [
                raw.image_score
                for at, found in left_out.items()
                for raw in bank.judge(pipeline, at, _with_own_rows(pipeline, bank, at, found), excluded=False)
            ]
            calibration = _calibration(CalibrationMethod.LEAVE_ONE_OUT, normal, bank.least_distance)
            threshold = max(calibration.image_threshold, max(pristine) * (1 + _ROUNDING))
            return bank.normal(dataclasses.replace(calibration, image_threshold=threshold))
    normal = []
    for done, at in enumerate(bank.images, 1):
        for view in altered_views(inputs[at]):
            normal += pipeline.score(pipeline.patches(view[None]), bank.index)
        progress(LoadStage.CALIBRATE, done, len(bank.images))
    return bank.normal(_calibration(CalibrationMethod.AUGMENTED_VIEWS, normal, bank.least_distance))


@dataclass(frozen=True, slots=True, eq=False)
class _Bank:
    """The rows that were kept, all those they were chosen from, and which images they are of."""

    images: Sequence[int]  # the first of each set of equal ones
    same_as: Tensor  # (N,) int64, for each image the first one equal to it
    vectors: Tensor  # (N, P, D)
    kept: Tensor  # (K,) int64
    groups: Tensor  # (K,) int64, the images of the kept rows, equal ones as one
    index: BankIndex  # of the kept rows; its groups are the images
    every: BankIndex  # of all rows

    @classmethod
    def of(cls, pipeline: Pipeline, same_as: Tensor, vectors: Tensor, kept: Tensor) -> _Bank:
        device, (count, places, _) = pipeline.runtime.device, vectors.shape
        rows = vectors.flatten(0, 1).to(device)
        groups = same_as.repeat_interleave(places).to(device)
        place = torch.arange(places, device=device).repeat(count)
        on_device = kept.to(device)
        if len(kept) == len(rows):
            every = index = BankIndex(rows, groups, place, lists=pipeline.lists(rows))
        else:
            every, own = BankIndex(rows, groups, place), rows[on_device]
            index = BankIndex(own, groups[on_device], place[on_device], lists=pipeline.lists(own))
        return cls(sorted(set(same_as.tolist())), same_as, vectors, kept, groups[on_device], index, every)

    @property
    def least_distance(self) -> float:
        """What counts as none: far above what the order of floating-point sums changes."""
        return _ROUNDING * float(torch.linalg.vector_norm(self.index.patches, dim=1).mean()) or _ROUNDING

    def patches(self, at: int) -> Tensor:
        """(1, P, D) of one image, on the device."""
        return self.vectors[at : at + 1].to(self.index.patches.device)

    def group(self, at: int) -> Tensor:
        return torch.tensor([at], device=self.index.patches.device)

    def spaced(self, spacing: Tensor) -> _Bank:
        return dataclasses.replace(self, index=dataclasses.replace(self.index, spacing=spacing))

    def judge(self, pipeline: Pipeline, at: int, found: Neighbors, *, excluded: bool) -> list[RawScores]:
        return pipeline.judge(found, self.patches(at), self.index, self.group(at) if excluded else None)

    def normal(self, calibration: Calibration) -> Normal:
        spacing = self.index.spacing
        known = torch.ones(len(self.kept)) if spacing is None else spacing.cpu()
        return Normal(known.numpy(), calibration, self.index.lists)


def _left_out(pipeline: Pipeline, bank: _Bank, progress: Progress) -> dict[int, Neighbors]:
    """What each image finds among the kept rows of all the others."""
    found = {}
    for done, at in enumerate(bank.images, 1):
        found[at] = pipeline.search(bank.patches(at), bank.index, bank.group(at))
        progress(LoadStage.CALIBRATE, done, len(bank.images))
    return found


def _with_own_rows(pipeline: Pipeline, bank: _Bank, at: int, left_out: Neighbors) -> Neighbors:
    """What an image finds in the whole bank, its own rows included."""
    if bank.index.lists is not None:  # the whole bank as it is searched later, and fast
        return pipeline.search(bank.patches(at), bank.index)
    own = (bank.groups == at).nonzero()[:, 0]
    if not len(own):
        return left_out
    places = None if bank.index.places is None else bank.index.places[own]
    mine = pipeline.search(bank.patches(at), BankIndex(bank.index.patches[own], places=places))
    own_rows = torch.where(mine.rows < 0, mine.rows, own[mine.rows.clamp(min=0)])
    rows, order = torch.cat((own_rows, left_out.rows), dim=2).sort(dim=2)  # the lower row first among equals
    distances = torch.cat((mine.distances, left_out.distances), dim=2).gather(2, order)
    distances, order = distances.sort(dim=2, stable=True)
    count = min(left_out.rows.shape[2], len(bank.kept))
    return Neighbors(distances[:, :, :count], rows.gather(2, order)[:, :, :count])


def _spacing(pipeline: Pipeline, bank: _Bank, left_out: dict[int, Neighbors]) -> Tensor:
    """How far each kept row (K,) lies from its nearest rows of other images, those not kept included, over the mean.

    A row that others equal has a distance of 0, so no row counts as nearer to them than a tenth of the mean.
    """
    if bank.index is bank.every:
        own = torch.cat([mean_of_nearest(found.distances) for found in left_out.values()])  # (images, P)
        distances = own[torch.searchsorted(torch.tensor(bank.images), bank.same_as)].flatten()
    else:
        index = bank.index
        visible = None if pipeline.reach is None or index.places is None else pipeline.reach[index.places]
        distances = mean_of_nearest(pipeline.nearest(index.patches, bank.every, index.groups, visible)[0])
    mean = distances.mean()
    return distances.clamp(min=_LEAST_SPACING * mean) / mean if mean > 0 else torch.ones_like(distances)


def altered_views(image: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """One image (S, S, 3) as it is, then moved, turned, darker and brighter, and compressed, each a little.

    As much as a fixed camera's images of one item differ. That items differ among themselves, no single one tells.
    """
    size_px = image.shape[0]
    middle = ((size_px - 1) / 2, (size_px - 1) / 2)
    yield image
    for right, down in _SHIFTS_PX:
        yield _warped(image, np.array([[1.0, 0.0, right], [0.0, 1.0, down]]))
    for turn in _TURNS_DEG:
        yield _warped(image, cv2.getRotationMatrix2D(middle, turn, 1.0))
    for gain in _GAINS:
        yield cv2.convertScaleAbs(image, alpha=gain).astype(np.uint8, copy=False)
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    yield np.array(Image.open(jpeg))


def upper_limit(values: Sequence[float]) -> float:
    """What a further normal value stays under, most times, as far as n left-out values (two or more) tell.

    From 11 on the conformal quantile, whatever the distribution: the value of rank ceil(0.91 (n + 1)). Fewer have no
    such rank: their mean and 1.5 standard deviations, about the same share of a normal distribution. Both by
    measurement (docs/accuracy.md): a stricter limit misses more defects than it spares false alarms.
    """
    rank = math.ceil(_NORMAL_SHARE * (len(values) + 1))
    return sorted(values)[rank - 1] if rank <= len(values) else fmean(values) + _DEVIATIONS * stdev(values)


def _first_equal(inputs: ModelInputs) -> Tensor:
    """For each image (N,) the position of the first one equal to it."""
    first: dict[bytes, int] = {}
    return torch.tensor([first.setdefault(image.tobytes(), at) for at, image in enumerate(inputs)])


def _warped(image: NDArray[np.uint8], matrix: MatLike) -> NDArray[np.uint8]:
    size_px = (image.shape[1], image.shape[0])
    warped = cv2.warpAffine(image, matrix, size_px, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return warped.astype(np.uint8, copy=False)


def _calibration(method: CalibrationMethod, normal: Sequence[RawScores], least: float) -> Calibration:
    """The image threshold from the scores of normal images, the patch threshold from the peaks of their maps."""
    scores = [found.image_score for found in normal]
    peaks = [float(np.nanmax(found.anomaly_map)) for found in normal]
    limit = upper_limit if method is CalibrationMethod.LEAVE_ONE_OUT else max
    spread = ScoreSpread(len(scores), min(scores), fmean(scores), pstdev(scores), max(scores))
    return Calibration(method, max(limit(scores), least), max(limit(peaks), least), spread)
