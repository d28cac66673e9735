"""Thresholds from the reference pictures alone: what normal pictures score, and how far above that is anomalous."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from statistics import fmean, pstdev, stdev

import cv2
import numpy as np
import torch
from cv2.typing import MatLike
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.progress import LoadStage
from patchserve_server.domain.reference import Calibration, CalibrationMethod, MemoryBank, ScoreSpread
from patchserve_server.engine.neighbours import BankIndex
from patchserve_server.engine.pipeline import Pipeline, RawScores
from patchserve_server.engine.scoring import REWEIGHTING_NEIGHBOURS

_LEAST_FOR_LEAVE_ONE_OUT = 3
_NORMAL_SHARE = 0.95
_LEAST_REWEIGHTING = 1 - 1 / REWEIGHTING_NEIGHBOURS  # the nearest of 9 has at least a ninth of the softmax
_ROUNDING = 1e-3  # far above what the order of floating-point sums changes

_SHIFTS_PX = ((2.0, 2.0), (-2.0, 2.0), (2.0, -2.0), (-2.0, -2.0))
_TURNS_DEG = (-1.0, 1.0)
_GAINS = (0.85, 1.15)
_JPEG_QUALITY = 75


def calibrate(pipeline: Pipeline, bank: MemoryBank, vectors: Tensor, progress: Progress) -> Calibration:
    """Thresholds of a bank, which no picture that it was made of exceeds.

    Equal pictures count as one. With three or more, each is scored against the rows of all the others; else, or where
    a coreset left too few rows of the others, altered views are scored against the whole bank.

    Args:
        pipeline: the one that made the bank.
        bank: the rows that were kept.
        vectors: (N, P, D) float32, all vectors of the bank's pictures.
        progress: called with the pictures scored.
    """
    same_as = _first_equal(bank.inputs)
    device = pipeline.network.device
    index = BankIndex(torch.from_numpy(bank.patches).to(device), torch.from_numpy(same_as[bank.image_index]).to(device))
    pictures = np.unique(same_as)
    least = _ROUNDING * float(torch.linalg.vector_norm(index.patches, dim=1).mean()) or _ROUNDING
    if len(pictures) >= _LEAST_FOR_LEAVE_ONE_OUT:
        normal: list[RawScores] = []
        for done, at in enumerate(pictures.tolist(), 1):
            normal += pipeline.score(vectors[at : at + 1].to(device), index, torch.tensor([at], device=device))
            progress(LoadStage.CALIBRATE, done, len(pictures))
        if all(math.isfinite(found.image_score) for found in normal):
            found = _calibration(CalibrationMethod.LEAVE_ONE_OUT, normal, least)
            return _above_pristine(found, pipeline, index, vectors[pictures], normal)
    normal = []
    for done, at in enumerate(pictures.tolist(), 1):
        for view in altered_views(bank.inputs[at]):
            normal += pipeline.score(pipeline.patches(view[None]), index)
        progress(LoadStage.CALIBRATE, done, len(pictures))
    return _calibration(CalibrationMethod.AUGMENTED_VIEWS, normal, least)


def altered_views(picture: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """One picture (S, S, 3) as it is, then moved, turned, darker and brighter, and compressed, each a little.

    As much as a fixed camera's pictures of one item differ. That items differ among themselves, no single one tells.
    """
    size_px = picture.shape[0]
    middle = ((size_px - 1) / 2, (size_px - 1) / 2)
    yield picture
    for right, down in _SHIFTS_PX:
        yield _warped(picture, np.array([[1.0, 0.0, right], [0.0, 1.0, down]]))
    for turn in _TURNS_DEG:
        yield _warped(picture, cv2.getRotationMatrix2D(middle, turn, 1.0))
    for gain in _GAINS:
        yield cv2.convertScaleAbs(picture, alpha=gain).astype(np.uint8, copy=False)
    jpeg = io.BytesIO()
    Image.fromarray(picture).save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    yield np.array(Image.open(jpeg))


def upper_limit(values: Sequence[float]) -> float:
    """What a further normal value stays under, about 19 times in 20, as far as n left-out values (two or more) tell.

    From 19 on the conformal quantile, whatever the distribution: the value of rank ceil(0.95 (n + 1)). Fewer have no
    such rank: their mean and two standard deviations, which raised the fewest false alarms that still found defects.
    """
    rank = math.ceil(_NORMAL_SHARE * (len(values) + 1))
    return sorted(values)[rank - 1] if rank <= len(values) else fmean(values) + 2 * stdev(values)


def _first_equal(inputs: ModelInputs) -> NDArray[np.int64]:
    """For each picture (N,) the position of the first one equal to it."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(picture.tobytes(), at) for at, picture in enumerate(inputs)], dtype=np.int64)


def _warped(picture: NDArray[np.uint8], matrix: MatLike) -> NDArray[np.uint8]:
    size_px = (picture.shape[1], picture.shape[0])
    warped = cv2.warpAffine(picture, matrix, size_px, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return warped.astype(np.uint8, copy=False)


def _calibration(method: CalibrationMethod, normal: Sequence[RawScores], least: float) -> Calibration:
    """The image threshold from the scores of normal pictures, the patch threshold from the peaks of their maps."""
    scores = [found.image_score for found in normal]
    peaks = [float(found.anomaly_map.max()) for found in normal]
    limit = upper_limit if method is CalibrationMethod.LEAVE_ONE_OUT else max
    spread = ScoreSpread(len(scores), min(scores), fmean(scores), pstdev(scores), max(scores))
    return Calibration(method, max(limit(scores), least), max(limit(peaks), least), spread)


def _above_pristine(
    found: Calibration, pipeline: Pipeline, index: BankIndex, vectors: Tensor, left_out: Sequence[RawScores]
) -> Calibration:
    """The same with an image threshold over each picture's score against the whole bank, its own rows included.

    Own rows only bring neighbours nearer, so the score is at most that without them, but for the re-weighting: only
    pictures that come near the threshold are scored again.
    """
    threshold = found.image_threshold
    for at, without in enumerate(left_out):
        if without.image_score >= found.image_threshold * _LEAST_REWEIGHTING:
            [pristine] = pipeline.score(vectors[at : at + 1].to(pipeline.network.device), index)
            threshold = max(threshold, pristine.image_score * (1 + _ROUNDING))
    return dataclasses.replace(found, image_threshold=threshold)
