"""A detector without a network: an image's score is its mean distance in gray levels from the reference's mean."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import AnomalyScore, DamageScore, Detection
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import DetectionTimes, DetectorInfo, Progress
from patchserve_server.domain.reference import (
    Calibration,
    CalibrationMethod,
    EmbeddingSpec,
    MemoryBank,
    ReferenceModel,
    ReferenceOptions,
    ScoreSpread,
)

INPUT_SIZE_PX = 16


class FakeDetector:
    """Records its batches; `gate` holds every detect back until it is set; `failure` is raised by the next detect."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.fit_gate = threading.Event()
        self.fit_gate.set()
        self.fitted: Callable[[], None] = lambda: None

    @property
    def info(self) -> DetectorInfo:
        return DetectorInfo("fake", "0" * 64, "made up", "", "cpu", "fp32", INPUT_SIZE_PX, 3)

    @property
    def spec(self) -> EmbeddingSpec:
        return EmbeddingSpec("fake", "0" * 64, "none", "fp32")

    def fit(self, inputs: ModelInputs, options: ReferenceOptions, progress: Progress) -> ReferenceModel:
        assert self.fit_gate.wait(30)
        progress(LoadStage.EMBED, len(inputs), len(inputs))
        self.fitted()
        patches = inputs.reshape(len(inputs), -1, 3).mean(axis=1, dtype=np.float32)  # (N, 3)
        index = np.arange(len(inputs), dtype=np.int32)
        bank = MemoryBank(patches, index, np.zeros_like(index), np.ones(len(inputs), np.float32), inputs)
        calibration = Calibration(CalibrationMethod.AUGMENTED_VIEWS, 20.0, 20.0, ScoreSpread(1, 0.0, 0.0, 0.0, 0.0))
        return ReferenceModel(self.spec, options, bank, calibration)

    def extend(self, model: ReferenceModel, inputs: ModelInputs, progress: Progress) -> ReferenceModel:
        return self.fit(np.concatenate([model.bank.inputs, inputs]), model.options, progress)

    def prepare(self, model: ReferenceModel) -> None:
        pass

    def detect(self, model: ReferenceModel, inputs: ModelInputs) -> tuple[Sequence[Detection], DetectionTimes]:
        self.batches.append(len(inputs))
        assert self.gate.wait(30)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return [_detect(model, image) for image in inputs], DetectionTimes(1.0, 1.0)


def _detect(model: ReferenceModel, image: ModelInputs) -> Detection:
    difference = np.abs(image.astype(np.float32) - model.bank.patches.mean(axis=0)).mean(axis=2)  # (S, S)
    raw, threshold = float(difference.mean()), model.calibration.image_threshold
    anomaly = AnomalyScore(raw / (raw + threshold), raw, threshold, raw > threshold, 0.0)
    return Detection(difference, DamageScore(0.0, anomaly_detected=False), anomaly)
