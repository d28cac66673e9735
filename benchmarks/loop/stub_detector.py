"""A detector without a network. Its results have the shape and the size of real ones, and take no time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchserve_server.domain import ports
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import DEFAULT_SIDE_PX, InputShape
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import DetectorInfo, Progress, Scorer, ScoringTimes
from patchserve_server.domain.reference import (
    Calibration,
    CalibrationMethod,
    EmbeddingSpec,
    MemoryBank,
    ReferenceInfo,
    ReferenceModel,
    ScoreSpread,
)
from patchserve_server.domain.reference_options import ReferenceOptions

_VALUES: tuple[Any, ...] = ("stub", "0" * 64, "none", "", "cpu", "fp32", DEFAULT_SIDE_PX, 1, 3, "fp32", 1, "cpu")
_INFO = DetectorInfo(*_VALUES[: len(dataclasses.fields(DetectorInfo))])  # an older checkout has fewer fields
_SPEC = EmbeddingSpec("stub", "0" * 64, "none", "fp32")
_CALIBRATION = Calibration(CalibrationMethod.AUGMENTED_VIEWS, 2.0, 2.0, ScoreSpread(1, 0.0, 0.0, 0.0, 0.0))


def _damaged_map(shape: InputShape) -> RawScores:
    """A map with one damaged place, so that there are a region and an overlay to draw."""
    rows, columns = np.ogrid[: shape.height_px, : shape.width_px]
    distances = np.hypot(rows - shape.height_px / 3, columns - shape.width_px / 2) / shape.width_px
    anomaly_map = (3.0 * np.exp(-8.0 * distances)).astype(np.float32)  # (H, W)
    return RawScores(float(anomaly_map.max()), anomaly_map)


@dataclass(frozen=True, eq=False)
class StubScorer:
    """Gives every image the same raw scores."""

    model: ReferenceModel
    raw: RawScores
    nbytes: int = 0
    patches_per_image: int = 1
    batch_key: str = ""

    def search_recall(self) -> float:
        return 1.0

    def score(self, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
        return [self.raw] * len(inputs), ScoringTimes(0.0, 0.0)


class StubDetector:
    """Opens scorers that compute nothing."""

    info = _INFO

    def warm_up(self) -> None:
        pass

    def device_memory(self) -> None:
        """It computes in the memory of the process."""

    def spec_of(self, _shape: InputShape) -> EmbeddingSpec:
        return _SPEC

    def input_shape(self, options: ReferenceOptions, size_px: tuple[int, int]) -> InputShape:
        return options.input.shape_for(size_px, step_px=1, default_side_px=DEFAULT_SIDE_PX)

    def fit_nbytes(self, _shape: InputShape, _options: ReferenceOptions, _image_count: int) -> int:
        return 0

    def fit(self, inputs: ModelInputs, options: ReferenceOptions, _progress: Progress) -> Scorer:
        index = np.arange(len(inputs), dtype=np.int32)
        patches = inputs.reshape(len(inputs), -1, 3).mean(axis=1, dtype=np.float32)  # (N, 3)
        bank = MemoryBank(patches, index, np.zeros_like(index), np.ones(len(inputs), np.float32), inputs)
        return self.open(ReferenceModel(_SPEC, options, bank, _CALIBRATION))

    def extend(self, base: Scorer, inputs: ModelInputs, progress: Progress) -> Scorer:
        return self.fit(np.concatenate([base.model.bank.inputs, inputs]), base.model.options, progress)

    def open(self, model: ReferenceModel) -> Scorer:
        return StubScorer(model, _damaged_map(InputShape.square()))

    def score_batch(self, batch: Sequence[tuple[Scorer, Any]]) -> Iterator[ports.ScoredPart]:
        for number, (scorer, inputs) in enumerate(batch):
            yield ports.ScoredPart(number, *scorer.score(inputs))

    def draw(self, drawings: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError

    def shared_nbytes(self, _shape: InputShape, _options: ReferenceOptions) -> int:
        return 0

    def open_nbytes(self, _info: ReferenceInfo) -> int:
        return 0
