"""What serving asks of the layers below it. Fakes in tests/ implement the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import Detection
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.reference import EmbeddingSpec, Reference, ReferenceModel, ReferenceOptions

Progress = Callable[[LoadStage, int, int], None]
"""Called with QUANTIZE, EMBED, CORESET or CALIBRATE, the steps done and the steps in all; from a worker thread."""


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """What a detector is, for GetServerInfo."""

    backbone: str
    weights_digest: str
    weights_source: str
    fallback_reason: str  # empty: the backbone asked for
    device: str  # "cpu", "cuda:0"
    precision: str
    input_size_px: int
    feature_dim: int
    bytes_per_reference: int = 0  # of main memory, beside the bank: a network of its own


@dataclass(frozen=True, slots=True)
class DetectionTimes:
    """Milliseconds of one batch."""

    embed_ms: float
    search_ms: float


class Detector(Protocol):
    """PatchCore over one backbone. Blocking; called from worker threads, several at once."""

    @property
    def info(self) -> DetectorInfo: ...

    @property
    def spec(self) -> EmbeddingSpec:
        """What this detector's banks must match."""

    def fit(self, inputs: ModelInputs, options: ReferenceOptions, progress: Progress) -> ReferenceModel:
        """Builds the bank of a set of images and calibrates it. The result depends on nothing else.

        Raises:
            InvalidInputError: an option is out of its range.
        """

    def extend(self, model: ReferenceModel, inputs: ModelInputs, progress: Progress) -> ReferenceModel:
        """The model of the old images and the new ones together; equal to `fit` of them all.

        Raises:
            BankMismatchError: the model was made by another backbone, other weights or another precision.
        """

    def prepare(self, model: ReferenceModel) -> None:
        """Does now what the first `detect` of a stored model would have to wait for.

        Raises:
            BankMismatchError: as above.
        """

    def detect(self, model: ReferenceModel, inputs: ModelInputs) -> tuple[Sequence[Detection], DetectionTimes]:
        """One Detection for each image, each independent of the others in the batch.

        Raises:
            BankMismatchError: as above.
        """


class ReferenceStore(Protocol):
    """Where references live beyond a call. Blocking, safe from several threads."""

    is_durable: bool
    """Whether what was saved can leave memory and be loaded again."""

    def save(self, reference: Reference) -> None:
        """Makes this revision the current one of its id. All or nothing: a kill leaves the old or the new.

        Raises:
            StorageFullError, StorageUnavailableError: the old revision stays.
        """

    def load(self, reference_id: str) -> Reference:
        """The current revision.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: its files do not hold what they should.
            StorageUnavailableError: it cannot be read.
        """

    def list_ids(self) -> Sequence[str]:
        """The ids that have a current revision, sorted; damaged ones too."""

    def delete(self, reference_id: str) -> None:
        """Removes every revision of this id.

        Raises:
            ReferenceNotFoundError: there is none.
            StorageFullError, StorageUnavailableError: it cannot be removed; it still loads.
        """
