"""A detector without a network: an image's score is its mean distance from the reference's mean, in gray levels."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.ports import DetectorInfo, Progress, ScoredPart, Scorer, ScorerInputs, ScoringTimes
from patchserve_server.domain.reference import (
    Bank,
    Calibration,
    CalibrationMethod,
    EmbeddingSpec,
    MemoryBank,
    ReferenceInfo,
    ReferenceModel,
    ScoreSpread,
)
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.domain.subspace import Subspace
from patchserve_server.imaging.decode import upright

INPUT_SIZE_PX = 16
SPEC = EmbeddingSpec("fake", "0" * 64, "none", "fp32")


class FakeDetector:
    """Records its batches and the models that it opens.

    A batch waits until `gate` is set, `fit` until `fit_gate` is set, and `open` until the event in `open_gates` for the
    number of images of the model is set. The next batch raises `failure`. `extra_nbytes` is the memory of a scorer in
    addition to its bank. With `decode="device"` it decodes files, otherwise than the CPU would scale them, and draws
    overlays: the file alone. What `is_unknown` it can do neither with; what `is_undrawable` it can only not draw.
    """

    def __init__(self, extra_nbytes: int = 0, *, decode: str = "cpu") -> None:
        self.decode = decode
        self.batches: list[int] = []
        self.files = 0  # that it has scored
        self.drawings: list[OverlayDrawing] = []
        self.drawing_batches: list[int] = []
        self.drawing_gate = _open_gate()
        self.is_unknown: Callable[[JpegFile], bool] = lambda _: False
        self.is_undrawable: Callable[[JpegFile], bool] = lambda _: False
        self.gate = _open_gate()
        self.failure: Exception | None = None
        self.fit_gate = _open_gate()
        self.fitted: Callable[[], None] = lambda: None
        self.openings: list[ReferenceModel] = []
        self.open_gates: dict[int, threading.Event] = {}
        self._extra_nbytes = extra_nbytes

    @property
    def info(self) -> DetectorInfo:
        return DetectorInfo("fake", "0" * 64, "made up", "", "cpu", "fp32", INPUT_SIZE_PX, 1, 3, "fp32", 1, self.decode)

    def device_memory(self) -> None:
        """It computes in the memory of the process."""

    def spec_of(self, _shape: InputShape) -> EmbeddingSpec:
        return SPEC

    def input_shape(self, options: ReferenceOptions, size_px: tuple[int, int]) -> InputShape:
        return options.input.shape_for(size_px, step_px=1, default_side_px=INPUT_SIZE_PX)

    def fit_nbytes(self, shape: InputShape, _options: ReferenceOptions, image_count: int) -> int:
        return 3 * shape.pixels * image_count

    def fit(self, inputs: ModelInputs, options: ReferenceOptions, progress: Progress) -> Scorer:
        assert self.fit_gate.wait(30)
        progress(LoadStage.EMBED, len(inputs), len(inputs))
        self.fitted()
        return self._scorer(fake_model(inputs, options))

    def extend(self, base: Scorer, inputs: ModelInputs, progress: Progress) -> Scorer:
        return self.fit(np.concatenate([base.model.bank.inputs, inputs]), base.model.options, progress)

    def open(self, model: ReferenceModel) -> Scorer:
        self.openings.append(model)
        if (gate := self.open_gates.get(len(model.bank.inputs))) is not None:
            assert gate.wait(30)
        if model.spec != SPEC:
            raise BankMismatchError("", f"This reference was built with {model.spec}, but this server runs {SPEC}.")
        return self._scorer(model)

    def shared_nbytes(self, _shape: InputShape, _options: ReferenceOptions) -> int:
        return 0

    def open_nbytes(self, info: ReferenceInfo) -> int:
        return info.bank_bytes + self._extra_nbytes

    def score_batch(self, batch: Sequence[tuple[Scorer, ScorerInputs]]) -> Iterator[ScoredPart]:
        self.batches.append(sum(len(inputs) for _, inputs in batch))
        assert self.gate.wait(30)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        for number, (scorer, inputs) in enumerate(batch):
            unknown = dict[int, DeviceCodecError]()
            if not isinstance(inputs, np.ndarray):
                self.files += len(inputs)
                unknown = {at: DeviceCodecError("made up") for at, file in enumerate(inputs) if self.is_unknown(file)}
                inputs = _decoded([file for at, file in enumerate(inputs) if at not in unknown], scorer)  # noqa: PLW2901
            times = ScoringTimes(1.0, 1.0, 2.0 if self.decode == "device" else 0.0)
            try:
                scores, _ = scorer.score(inputs)
            except ValueError as error:
                yield ScoredPart(number, error, times, unknown)
            else:
                yield ScoredPart(number, scores, times, unknown)

    def draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        self.drawing_batches.append(len(drawings))
        self.drawings += drawings
        assert self.drawing_gate.wait(30)
        return [self._drawn(drawing) for drawing in drawings]

    def _drawn(self, drawing: OverlayDrawing) -> bytes | DeviceCodecError:
        if self.is_unknown(drawing.file) or self.is_undrawable(drawing.file):
            return DeviceCodecError("made up")
        return drawing.file.data

    def _scorer(self, model: ReferenceModel) -> FakeScorer:
        return FakeScorer(model, model.bank.nbytes + self._extra_nbytes)


@dataclass(frozen=True, eq=False)
class FakeScorer:
    model: ReferenceModel
    nbytes: int = 0
    patches_per_image: int = 1
    recall: float = 1.0

    def search_recall(self) -> float:
        return self.recall

    @property
    def batch_key(self) -> str:
        return str(self.model.bank.input_shape)

    def score(self, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
        if inputs.shape[1:] != self.model.bank.inputs.shape[1:]:
            raise ValueError(f"The shape of the model inputs is {inputs.shape[1:]}.")
        return [_score(self.model, image) for image in inputs], ScoringTimes(1.0, 1.0)


def _decoded(files: Sequence[JpegFile], scorer: Scorer) -> ModelInputs:
    shape = scorer.model.bank.input_shape
    images = [upright(Image.open(io.BytesIO(file.data)).convert("RGB"), file.orientation) for file in files]
    scaled = [np.asarray(image.resize(shape.size_px, Image.Resampling.NEAREST)) for image in images]
    return np.stack(scaled) if scaled else np.empty((0, shape.height_px, shape.width_px, 3), np.uint8)


def fake_model(inputs: ModelInputs, options: ReferenceOptions) -> ReferenceModel:
    """A model whose bank has one row for each image: its mean color. A subspace has the mean of these."""
    patches = inputs.reshape(len(inputs), -1, 3).mean(axis=1, dtype=np.float32)  # (N, 3)
    index = np.arange(len(inputs), dtype=np.int32)
    bank: Bank = MemoryBank(patches, index, np.zeros_like(index), np.ones(len(inputs), np.float32), inputs)
    if options.profile is ScoringProfile.SUBSPACE:
        bank = Subspace(patches.mean(axis=0), np.eye(1, 3, dtype=np.float32), inputs)
    calibration = Calibration(CalibrationMethod.AUGMENTED_VIEWS, 20.0, 20.0, ScoreSpread(1, 0.0, 0.0, 0.0, 0.0))
    return ReferenceModel(SPEC, options, bank, calibration)


def _score(model: ReferenceModel, image: ModelInputs) -> RawScores:
    bank = model.bank
    mean = bank.mean if isinstance(bank, Subspace) else bank.patches.mean(axis=0)
    difference = np.abs(image.astype(np.float32) - mean).mean(axis=2)  # (S, S)
    return RawScores(float(difference.mean()), difference)


def _open_gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate
