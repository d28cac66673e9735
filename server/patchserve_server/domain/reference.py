"""A reference: what was loaded, the memory bank made of it, and how its thresholds were found."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.images import ModelInputs

DEFAULT_REFERENCE_ID = "default"
_REFERENCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REVISION = re.compile(r"[0-9a-f]{64}")


def checked_reference_id(reference_id: str, field: str = "reference_id") -> str:
    """The id itself, or `default` for an empty one.

    Raises:
        InvalidInputError: it is not 1 to 64 of A-Z a-z 0-9 . _ - with a letter or a digit first. Such an id is safe as
            the name of a folder.
    """
    if not reference_id:
        return DEFAULT_REFERENCE_ID
    if not _REFERENCE_ID.fullmatch(reference_id):
        raise InvalidInputError(
            field,
            f"A {field} is 1 to 64 of the characters A-Z a-z 0-9 . _ - and begins with a letter or a digit.",
        )
    return reference_id


def checked_expected_revision(revision: str, field: str = "expected_revision") -> str:
    """The revision itself, or the empty one that stands for any.

    Raises:
        InvalidInputError: it has not the form of one. Answers and logs name revisions: nothing else gets there.
    """
    if revision and not _REVISION.fullmatch(revision):
        raise InvalidInputError(
            field, f"{field} is a revision as the server names it, 64 hexadecimal digits, or empty."
        )
    return revision


class ScoringProfile(enum.Enum):
    """How patches are described and distances become scores."""

    NOTEBOOK = "notebook"
    PAPER = "paper"


class CalibrationMethod(enum.Enum):
    """Where the scores of normal images came from."""

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
class CoresetOptions:
    """Which share of the patches is kept. At most one is set; neither keeps all."""

    ratio: float | None = None  # above 0, at most 1
    max_patches: int | None = None


RelativePoint: TypeAlias = tuple[float, float]
"""(x, y) as shares of an image's width and height, 0 to 1 from its top left."""

RegionOfInterest: TypeAlias = tuple[tuple[RelativePoint, ...], ...]
"""Polygons, not closed. What lies in any of them counts; with none, the whole image does."""

MAX_REGION_POINTS = 500


def checked_region_of_interest(polygons: RegionOfInterest) -> RegionOfInterest:
    """The polygons themselves.

    Raises:
        InvalidInputError: a polygon has fewer than 3 points, all have too many, or a point is not within the image.
    """
    name = "region_of_interest"
    points = [point for polygon in polygons for point in polygon]
    if any(len(polygon) < 3 for polygon in polygons):  # noqa: PLR2004
        raise InvalidInputError(name, f"{name}: a polygon has at least 3 points.")
    if len(points) > MAX_REGION_POINTS:
        raise InvalidInputError(name, f"{name} has at most {MAX_REGION_POINTS} points in all.")
    if not all(0 <= share <= 1 for point in points for share in point):  # catches NaN too
        raise InvalidInputError(name, f"{name}: x and y are shares of the image's width and height, 0 to 1.")
    return polygons


def checked_search_radius(radius: float | None) -> float | None:
    """The radius itself.

    Raises:
        InvalidInputError: it is not above 0 and at most 1.
    """
    if radius is not None and not 0 < radius <= 1:  # catches NaN too
        message = (
            "search_radius is a share of the image's side, above 0 and at most 1; leave it out to search everywhere."
        )
        raise InvalidInputError("search_radius", message)
    return radius


def checked_approximate_search(approximate_search: bool, search_radius: float | None) -> bool:
    """Whether neighbors may be approximate, as given.

    Raises:
        InvalidInputError: they may be, and there is a search radius.
    """
    if approximate_search and search_radius is not None:
        message = (
            "approximate_search is for neighbors from everywhere, and search_radius is set; leave one of the two out."
        )
        raise InvalidInputError("approximate_search", message)
    return approximate_search


@dataclass(frozen=True, slots=True)
class ReferenceOptions:
    """What the user decides when a reference is loaded."""

    profile: ScoringProfile = ScoringProfile.NOTEBOOK
    coreset: CoresetOptions = field(default_factory=CoresetOptions)
    search_radius: float | None = None  # a share of the image's side, above 0 to 1; None: neighbors from everywhere
    region_of_interest: RegionOfInterest = ()
    approximate_search: bool = False  # of a large bank; not with a search radius


@dataclass(frozen=True, slots=True)
class ScoreSpread:
    """The spread of the raw image scores of normal images."""

    count: int
    min: float
    mean: float
    stddev: float
    max: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Raw thresholds found from the reference images alone."""

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

    `image_index` and `grid_index` say where each row came from: calibration, APPEND and a search radius need it.
    `spacing` says how far apart the reference's own patches lie around a row, relative to the mean of all rows.
    `inputs` keeps the scaled images themselves (150 KB each at 224 px), from which all else can be computed again.
    """

    patches: NDArray[np.float32]  # (P, D)
    image_index: NDArray[np.int32]  # (P,), which image of `inputs`, 0..N-1
    grid_index: NDArray[np.int32]  # (P,), which place of the patch grid, row by row from the top left
    spacing: NDArray[np.float32]  # (P,), above 0
    inputs: ModelInputs  # (N, S, S, 3)

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, array.name).nbytes for array in fields(self))


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ReferenceModel:
    """What the engine makes of reference images: enough to score, without a name or a date."""

    spec: EmbeddingSpec
    options: ReferenceOptions
    bank: MemoryBank
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class ReferenceFacts:
    """What is told of a reference: all but its bank."""

    reference_id: str
    revision: str
    create_time: datetime
    update_time: datetime
    spec: EmbeddingSpec
    options: ReferenceOptions
    calibration: Calibration
    image_count: int
    patch_count: int
    feature_dim: int
    bank_bytes: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Reference:
    """A named revision of a reference. Immutable: a change makes a new one."""

    reference_id: str
    revision: str  # the model's content digest, hexadecimal SHA-256
    create_time: datetime  # of the id's first revision, UTC
    update_time: datetime  # of this revision, UTC
    model: ReferenceModel

    @property
    def facts(self) -> ReferenceFacts:
        model, bank = self.model, self.model.bank
        return ReferenceFacts(
            reference_id=self.reference_id,
            revision=self.revision,
            create_time=self.create_time,
            update_time=self.update_time,
            spec=model.spec,
            options=model.options,
            calibration=model.calibration,
            image_count=len(bank.inputs),
            patch_count=bank.patches.shape[0],
            feature_dim=bank.patches.shape[1],
            bank_bytes=bank.nbytes,
        )
