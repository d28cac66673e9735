"""A reference: its options, the memory bank computed from its images, and its calibration."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.arrays import check_arrays, check_inputs
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.domain.sensitivity import DEFAULT_SENSITIVITY, check_sensitivity
from patchserve_server.domain.subspace import Subspace

MAX_NORMAL_SCORES: Final = 256  # enough for a histogram; a list of references must stay small


class ReferenceOperation(enum.Enum):
    """What made a revision the current one, in the first place: a restore makes none."""

    LOAD = "load"
    APPEND = "append"
    TUNE = "tune"
    IMPORT = "import"


class CalibrationMethod(enum.Enum):
    """How the scores of normal images were measured."""

    LEAVE_ONE_OUT = "leave_one_out"
    AUGMENTED_VIEWS = "augmented_views"


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """Everything that decides what a patch vector means. Banks with different specs are never mixed."""

    backbone: str
    weights_digest: str  # SHA-256, hexadecimal
    preprocessing: str  # such as "bilinear-224/imagenet"
    precision: str  # "fp32", "bf16", "int8"


@dataclass(frozen=True, slots=True)
class ScoreSpread:
    """The distribution of the raw image scores of normal images.

    `scores` are the scores themselves, in ascending order: all, or of many only `MAX_NORMAL_SCORES`, evenly spaced by
    rank, the lowest and the highest included. Empty: not known. Nothing is computed from them.

    Raises:
        ValueError: the numbers contradict each other.
    """

    count: int
    min: float
    mean: float
    stddev: float
    max: float
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        is_finite = all(map(math.isfinite, (self.min, self.mean, self.stddev, self.max)))
        if not is_finite or self.count < 1 or min(self.min, self.mean, self.stddev) < 0 or self.max < self.min:
            raise ValueError("the numbers of the normal scores contradict each other")
        if self.scores and not self._has_scores():
            raise ValueError("the list of normal scores contradicts the numbers")

    def _has_scores(self) -> bool:
        is_sorted = all(low <= high for low, high in pairwise(self.scores))  # and without NaN
        is_whole = len(self.scores) == min(self.count, MAX_NORMAL_SCORES)
        return is_sorted and is_whole and (self.scores[0], self.scores[-1]) == (self.min, self.max)

    @property
    def relative_stddev(self) -> float:
        """The standard deviation as a share of the mean; 0 if all scores are 0."""
        return self.stddev / self.mean if self.mean > 0 else 0.0

    @classmethod
    def of(cls, scores: Sequence[float]) -> Self:
        """The distribution of these scores, at least one."""
        ordered, count = sorted(scores), len(scores)
        kept = min(count, MAX_NORMAL_SCORES)
        ranks = [0] if kept == 1 else [round(step * (count - 1) / (kept - 1)) for step in range(kept)]
        listed = tuple(ordered[rank] for rank in ranks)
        return cls(count, ordered[0], fmean(scores), pstdev(scores), ordered[-1], listed)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Raw thresholds, computed from the reference images alone.

    Raises:
        ValueError: a threshold is negative or not finite, or the rates contradict each other.
    """

    method: CalibrationMethod
    image_threshold: float
    patch_threshold: float  # what the maps of normal images rarely exceed; the verdict does not use it
    normal_scores: ScoreSpread
    # The share of other undamaged items above the image threshold, expected and at most (with 95 % confidence), at a
    # sensitivity of 1. None: not known. Nothing is computed from them.
    false_alarm_rate: float | None = None
    false_alarm_rate_upper: float | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.image_threshold < math.inf and 0 <= self.patch_threshold < math.inf):
            raise ValueError("a threshold is negative or not finite")
        rate, upper = self.false_alarm_rate, self.false_alarm_rate_upper
        if rate is None or upper is None:
            if rate is not upper:
                raise ValueError("only one of the false alarm rates is known")
        elif not 0 <= rate <= upper <= 1:
            raise ValueError("the false alarm rates contradict each other")

    def with_sensitivity(self, sensitivity: float) -> Calibration:
        """The same calibration with both thresholds divided by the sensitivity."""
        image_threshold, patch_threshold = self.image_threshold / sensitivity, self.patch_threshold / sensitivity
        return replace(self, image_threshold=image_threshold, patch_threshold=patch_threshold)


_BANK_ARRAYS = {  # name -> type, number of axes
    "patches": (np.float32, 2),
    "image_index": (np.int32, 1),
    "grid_index": (np.int32, 1),
    "spacing": (np.float32, 1),
    "inputs": (np.uint8, 4),
}


@dataclass(frozen=True, slots=True, eq=False)
class MemoryBank:
    """Patch vectors of undamaged items, and the model inputs that they were computed from.

    `image_index` and `grid_index` say which image and position each row comes from. Calibration, APPEND and a search
    radius need them.
    `spacing` is the distance between the reference's own patches around a row, relative to the mean over all rows.
    `inputs` are stored (150 KB each at 224 px) because everything else can be computed from them again.

    Raises:
        ValueError: the type, the shape or a value of an array is not as below. `patches` may have any values.
    """

    patches: NDArray[np.float32]  # (P, D)
    image_index: NDArray[np.int32]  # (P,), index into `inputs`, 0..N-1
    grid_index: NDArray[np.int32]  # (P,), position in the patch grid, row by row from the top left
    spacing: NDArray[np.float32]  # (P,), above 0
    inputs: ModelInputs  # (N, H, W, 3)

    def __post_init__(self) -> None:
        check_arrays(self, _BANK_ARRAYS)
        if not len(self.patches) == len(self.image_index) == len(self.grid_index) == len(self.spacing):
            raise ValueError("arrays patches, image_index, grid_index and spacing differ in length")
        check_inputs(self.inputs)
        if self.image_index.min() < 0 or self.image_index.max() >= len(self.inputs):
            raise ValueError("array image_index refers to an image that does not exist")
        if self.grid_index.min() < 0:
            raise ValueError("array grid_index has a negative value")
        if not (self.spacing.min() > 0 and self.spacing.max() < np.inf):
            raise ValueError("array spacing has a value that is not finite or not above 0")

    @property
    def input_shape(self) -> InputShape:
        _, height, width, _ = self.inputs.shape
        return InputShape(height, width)

    @property
    def vector_count(self) -> int:
        """How many patch vectors it keeps."""
        return len(self.patches)

    @property
    def feature_dim(self) -> int:
        return len(self.patches[0])

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, array.name).nbytes for array in fields(self))


Bank: TypeAlias = MemoryBank | Subspace
"""What is kept of undamaged items: a subspace if the profile is SUBSPACE, else a memory bank."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceModel:
    """Everything that decides scores, without the reference's name and dates.

    Raises:
        InvalidInputError: the sensitivity is out of its range.
        ValueError: the bank is not one of the profile, or there are no views.
    """

    spec: EmbeddingSpec
    options: ReferenceOptions
    bank: Bank
    calibration: Calibration
    sensitivity: float = DEFAULT_SENSITIVITY  # of requests that set none
    # How many views of each image the bank was made of, the image itself included. None: not known. It is for people.
    views_per_image: int | None = None

    def __post_init__(self) -> None:
        check_sensitivity(self.sensitivity)
        if self.views_per_image is not None and self.views_per_image < 1:
            raise ValueError("a bank is made of one or more views of each image")
        if isinstance(self.bank, Subspace) != (self.options.profile is ScoringProfile.SUBSPACE):
            raise ValueError("the bank is not one of its profile")

    @property
    def memory_bank(self) -> MemoryBank:
        """The bank of a profile other than SUBSPACE.

        Raises:
            TypeError: it is a subspace.
        """
        if isinstance(self.bank, Subspace):
            raise TypeError("the bank of the SUBSPACE profile is not a memory bank")
        return self.bank


@dataclass(frozen=True, slots=True)
class ReferenceInfo:
    """The description of a reference, without its bank."""

    reference_id: ReferenceId
    revision: Revision
    create_time: datetime
    update_time: datetime
    spec: EmbeddingSpec
    options: ReferenceOptions
    calibration: Calibration
    sensitivity: float
    images: tuple[ReferenceImage, ...]
    input_shape: InputShape
    patch_count: int
    feature_dim: int
    bank_bytes: int
    views_per_image: int | None
    # None: none is kept. It belongs to the id, not to this revision.
    previous_revision: Revision | None = field(default=None, compare=False)
    operation: ReferenceOperation | None = field(default=None, compare=False)  # None: not known

    @property
    def image_count(self) -> int:
        return len(self.images)

    def thresholds(self, sensitivity: float | None = None) -> Calibration:
        """The calibration at the sensitivity of a request; None: at the reference's own."""
        return self.calibration.with_sensitivity(self.sensitivity if sensitivity is None else sensitivity)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A named revision of a reference. Immutable: a change makes a new one.

    Raises:
        ValueError: the number of images is not that of the bank.
    """

    reference_id: ReferenceId
    revision: Revision  # the model's content digest
    create_time: datetime  # of the id's first revision, UTC
    update_time: datetime  # of this revision, UTC
    model: ReferenceModel
    images: tuple[ReferenceImage, ...] = ()  # in the order of the bank's inputs; empty: nothing is known about them
    previous_revision: Revision | None = None  # that the store keeps besides this one; a save ignores it
    operation: ReferenceOperation | None = None  # that made this revision; None: not known

    def __post_init__(self) -> None:
        if len(self.images) not in (0, len(self.model.bank.inputs)):
            raise ValueError("images do not describe each image of the bank")

    @property
    def info(self) -> ReferenceInfo:
        model, bank = self.model, self.model.bank
        return ReferenceInfo(
            reference_id=self.reference_id,
            revision=self.revision,
            create_time=self.create_time,
            update_time=self.update_time,
            spec=model.spec,
            options=model.options,
            calibration=model.calibration,
            sensitivity=model.sensitivity,
            images=self.images or (ReferenceImage(),) * len(bank.inputs),
            input_shape=bank.input_shape,
            patch_count=bank.vector_count,
            feature_dim=bank.feature_dim,
            bank_bytes=bank.nbytes,
            views_per_image=model.views_per_image,
            previous_revision=self.previous_revision,
            operation=self.operation,
        )
