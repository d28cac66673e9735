"""A reference: what was loaded, the memory bank made of it, and how its thresholds were found."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.images import ModelInputs

DEFAULT_REFERENCE_ID = "default"
_REFERENCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checked_reference_id(reference_id: str) -> str:
    """The id itself, or `default` for an empty one.

    Raises:
        InvalidInputError: it is not 1 to 64 of A-Z a-z 0-9 . _ - with a letter or a digit first. Such an id is safe as
            the name of a folder.
    """
    if not reference_id:
        return DEFAULT_REFERENCE_ID
    if not _REFERENCE_ID.fullmatch(reference_id):
        raise InvalidInputError(
            "reference_id",
            "A reference_id is 1 to 64 of the characters A-Z a-z 0-9 . _ - and begins with a letter or a digit.",
        )
    return reference_id


class ScoringProfile(enum.Enum):
    """How patches are described and distances become scores."""

    NOTEBOOK = "notebook"
    PAPER = "paper"


class CalibrationMethod(enum.Enum):
    """Where the scores of normal pictures came from."""

    LEAVE_ONE_OUT = "leave_one_out"
    AUGMENTED_VIEWS = "augmented_views"


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """Everything that decides what a patch vector means. Banks with different specs are never mixed."""

    backbone: str
    weights_digest: str  # SHA-256, hexadecimal
    preprocessing: str  # such as "bilinear-224/imagenet"
    precision: str  # "fp32"
    profile: ScoringProfile


@dataclass(frozen=True, slots=True)
class CoresetOptions:
    """Which share of the patches is kept. At most one is set; neither keeps all."""

    ratio: float | None = None  # above 0, at most 1
    max_patches: int | None = None


@dataclass(frozen=True, slots=True)
class ScoreSpread:
    """The spread of the raw image scores of normal pictures."""

    count: int
    min: float
    mean: float
    stddev: float
    max: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Raw thresholds found from the reference pictures alone."""

    method: CalibrationMethod
    image_threshold: float
    patch_threshold: float
    normal_scores: ScoreSpread

    def at(self, sensitivity: float) -> Calibration:
        """The same with both thresholds divided by the sensitivity."""
        image_threshold, patch_threshold = self.image_threshold / sensitivity, self.patch_threshold / sensitivity
        return replace(self, image_threshold=image_threshold, patch_threshold=patch_threshold)


@dataclass(frozen=True, slots=True, eq=False)
class MemoryBank:
    """Patch vectors of undamaged items.

    `image_index` says from which picture of `inputs` each row came: calibration and APPEND need it. `inputs` keeps the
    scaled pictures themselves (150 KB each at 224 px), from which every row can be computed again.
    """

    patches: NDArray[np.float32]  # (P, D)
    image_index: NDArray[np.int32]  # (P,), values 0..N-1
    inputs: ModelInputs  # (N, S, S, 3)

    @property
    def nbytes(self) -> int:
        return self.patches.nbytes + self.image_index.nbytes + self.inputs.nbytes


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ReferenceModel:
    """What the engine makes of reference pictures: enough to score, without a name or a date."""

    spec: EmbeddingSpec
    coreset: CoresetOptions
    bank: MemoryBank
    calibration: Calibration


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A named revision of a reference. Immutable: a change makes a new one."""

    reference_id: str
    revision: str  # the model's content digest, hexadecimal SHA-256
    create_time: datetime  # of the id's first revision, UTC
    update_time: datetime  # of this revision, UTC
    model: ReferenceModel
