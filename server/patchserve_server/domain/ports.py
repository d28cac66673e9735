"""The interfaces between `serving` and the layers below it. The fakes in tests/ implement the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.reference import EmbeddingSpec, Reference, ReferenceInfo, ReferenceModel
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.domain.reference_options import ReferenceOptions

Progress = Callable[[LoadStage, int, int], None]
"""Called from a worker thread with QUANTIZE, EMBED, CORESET or CALIBRATE, the steps done and the total of steps."""

ScorerInputs: TypeAlias = ModelInputs | Sequence[JpegFile]
"""Images to score: scaled to the input shape of a reference, (B, H, W, 3); or files for a detector that decodes."""


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """The description of a detector, for GetServerInfo."""

    backbone: str
    weights_digest: str
    weights_source: str
    fallback_reason: str  # empty: this is the requested backbone
    device: str  # "cpu", "cuda:0"
    precision: str
    input_size_px: int  # of a reference that sets no other
    input_step_px: int  # sides of model inputs are multiples of it
    feature_dim: int
    search_product: str  # the number format of the first product of exact searches: "fp32", "bf16", "int8"
    search_threads: int
    decode: str  # "cpu"; "device": it takes JPEG files as well as model inputs, and draws JPEG overlays


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of a device that has its own."""

    used_bytes: int  # by this process
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class ScoringTimes:
    """The time of each step of one batch, from its beginning until a result was there."""

    embed_ms: float
    search_ms: float
    decode_ms: float = 0.0  # of files, by the device


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPart:
    """The outcome of one part of a batch: of the images of one reference."""

    number: int  # of the part, from 0
    scores: Sequence[RawScores] | Exception  # of each image that is decoded; or what failed
    times: ScoringTimes
    undecoded: Mapping[int, DeviceCodecError] = field(default_factory=dict)  # why, by the number of the file


class Scorer(Protocol):
    """An open reference: everything in memory that scoring needs. Blocking; called from several threads at once."""

    @property
    def model(self) -> ReferenceModel:
        """The model that was opened. Its sensitivity may be an older one: raw scores do not depend on it."""

    @property
    def nbytes(self) -> int:
        """All memory that this scorer holds: bank, indexes, its network in int8, copies on a device."""

    @property
    def patches_per_image(self) -> int:
        """The size of the patch grid. The bank has as many rows for each of its images, or fewer with a coreset."""

    @property
    def batch_key(self) -> str:
        """Scorers of one detector with the same key share passes of the network in `Detector.score_batch`."""

    def search_recall(self) -> float:
        """The share of the nearest rows that a search finds, measured on the bank itself; 1 if it is exact."""

    def score(self, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
        """The raw scores of each model input (B, H, W, 3). Each result is independent of the other inputs."""


class Detector(Protocol):
    """PatchCore on one backbone. Blocking; called from several threads at once."""

    @property
    def info(self) -> DetectorInfo: ...

    def device_memory(self) -> DeviceMemory | None:
        """The memory of the device; None: it has that of the process."""

    def spec_of(self, shape: InputShape) -> EmbeddingSpec:
        """The spec that a bank of model inputs of this shape must have to be opened by this detector."""

    def input_shape(self, options: ReferenceOptions, size_px: tuple[int, int]) -> InputShape:
        """The shape of the model inputs of a reference, whose first image has this (width, height)."""

    def fit_nbytes(self, shape: InputShape, options: ReferenceOptions, image_count: int) -> int:
        """The memory that `fit` needs for this many model inputs of this shape, known before any is allocated.

        It includes the model inputs themselves and all that is searched, also what a coreset leaves out in the end.
        """

    def fit(self, inputs: ModelInputs, options: ReferenceOptions, progress: Progress) -> Scorer:
        """Builds and calibrates a model from model inputs (N, H, W, 3), and opens it.

        Equal inputs and options give equal models.
        """

    def extend(self, base: Scorer, inputs: ModelInputs, progress: Progress) -> Scorer:
        """Builds and opens a model from the base's images and the new ones. It equals `fit` with all these images.

        `base` must be a scorer of this detector.
        """

    def open(self, model: ReferenceModel) -> Scorer:
        """Prepares a stored model for scoring. May take seconds; afterwards `score` is fast from its first call.

        Raises:
            BankMismatchError: the model was built with another backbone, other weights or another precision.
        """

    def open_nbytes(self, info: ReferenceInfo) -> int:
        """The `nbytes` of the scorer that `open` would return, known before the memory is allocated."""

    def shared_nbytes(self, shape: InputShape, options: ReferenceOptions) -> int:
        """The memory of the network's buffers for a reference of model inputs of this shape.

        References share the buffers, which are as large as the largest of them has needed so far. `fit_nbytes`
        includes them.
        """

    def score_batch(self, batch: Sequence[tuple[Scorer, ScorerInputs]]) -> Iterator[ScoredPart]:
        """Scores images of several references, which share passes of the network.

        Each part has one outcome, as soon as it is there. Its scores are those of `Scorer.score`: on a CPU, in every
        bit. If one part fails, the others have their scores; if something that they share fails, it is raised.

        Args:
            batch: scorers of this detector with the same `batch_key`. Files only if `DetectorInfo.decode` is "device".
        """

    def draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        """The JPEG file of each overlay; an error where the device cannot draw it.

        Called only if `DetectorInfo.decode` is "device".
        """


@dataclass(frozen=True, slots=True)
class KeptRevision:
    """The previous revision of a reference, as its store keeps it."""

    revision: Revision
    nbytes: int  # of memory that only this revision uses; 0 if it is in files


class OutgoingFile(Protocol):
    """An exported reference. Blocking."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, max_bytes: int) -> bytes:
        """The next bytes; empty: there are no more."""


class IncomingFile(Protocol):
    """An exported reference that arrives. Blocking."""

    def write(self, data: bytes) -> None:
        """Takes the next bytes.

        Raises:
            ReferenceFileError: this is no such file, or it is longer than it says.
            StorageFullError, StorageUnavailableError: it cannot be kept.
        """

    def finish(self) -> ImportedReference:
        """The reference, after the last bytes. All of it is verified.

        Raises:
            ReferenceFileError: the file is not whole, or damaged.
            StorageUnavailableError: it cannot be read.
        """


@dataclass(frozen=True, slots=True, eq=False)
class ImportedReference:
    """What an exported reference has."""

    reference_id: ReferenceId  # that it had where it was exported
    revision: Revision
    model: ReferenceModel
    images: tuple[ReferenceImage, ...]


class ReferenceFiles(Protocol):
    """Writes and reads references as single files. Blocking; called from several threads at once."""

    def export(self, reference: Reference) -> AbstractContextManager[OutgoingFile]:
        """The file of a reference, until the block ends.

        Raises:
            StorageFullError, StorageUnavailableError: it cannot be written.
        """

    def receive(self, size_bytes: int) -> AbstractContextManager[IncomingFile]:
        """Takes a file of this size. What has arrived of it is removed when the block ends.

        Raises:
            ReferenceFileError: no such file has this size.
            StorageFullError, StorageUnavailableError: it cannot be kept.
        """

    def largest_for(self, bank_bytes: int) -> int:
        """The size of the largest file with such a bank, in bytes."""


class ReferenceStore(Protocol):
    """Stores references, each with its previous revision. Blocking; called from several threads at once."""

    is_durable: bool
    """Whether a saved reference can be removed from memory and loaded again."""

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        """Makes this revision the current one of its id. Atomic: after a kill, the store has the old or the new one.

        Args:
            reference: the revision.
            base: what must be current until then; None: anything or nothing. What is damaged is replaced in any case.

        Returns:
            The previous revision that is kept from now on: the old one. If the old one has the same content, or is
            damaged, it is the one that was kept before.

        Raises:
            ReferenceChangedError: `base` is not current. Nothing changes.
            StorageFullError, StorageUnavailableError: the old revision stays. If others use the store too, it is not
                known which revision is current.
        """

    def load(self, reference_id: ReferenceId) -> Reference:
        """The current revision.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceDamagedError: its files are damaged.
            StorageUnavailableError: it cannot be read.
        """

    def describe(self, reference_id: ReferenceId) -> ReferenceInfo:
        """The description of the current revision, without reading its bank: that may be damaged.

        Raises:
            The errors of `load`.
        """

    def load_previous(self, reference_id: ReferenceId) -> Reference:
        """The previous revision.

        Raises:
            ReferenceNotFoundError: there is no such reference.
            RevisionNotKeptError: it has no previous revision.
            ReferenceDamagedError: the files of the previous revision, or those that name it, are damaged.
            StorageUnavailableError: it cannot be read.
        """

    def describe_previous(self, reference_id: ReferenceId) -> ReferenceInfo:
        """The description of the previous revision, without reading its bank: that may be damaged.

        Raises:
            The errors of `load_previous`.
        """

    def restore(
        self, reference_id: ReferenceId, revision: Revision, base: Revision | None = None
    ) -> KeptRevision | None:
        """Exchanges the current and the previous revision. Atomic, as `save`.

        Args:
            reference_id: the reference.
            revision: the previous revision, as `load_previous` returned it.
            base: what must be current until then; None: anything.

        Returns:
            The revision that was current; None if it is damaged, and so not kept.

        Raises:
            ReferenceNotFoundError, RevisionNotKeptError: `revision` is not the previous revision.
            ReferenceChangedError: `base` is not current. Nothing changes.
            StorageFullError, StorageUnavailableError: as for `save`.
        """

    def forget_previous(self, reference_id: ReferenceId) -> None:
        """Frees the memory of a previous revision: it is no longer kept. Called if `KeptRevision.nbytes` is above 0."""

    def list_ids(self) -> Sequence[ReferenceId]:
        """The ids that have a current revision, sorted; damaged ones too."""

    def delete(self, reference_id: ReferenceId, revision: Revision | None = None) -> None:
        """Removes every revision of this id.

        Args:
            reference_id: the reference.
            revision: what must be current until then; None: anything. What is damaged is removed in any case.

        Raises:
            ReferenceNotFoundError: there is none.
            ReferenceChangedError: `revision` is not current. Nothing changes.
            StorageFullError, StorageUnavailableError: it cannot be removed; it can still be loaded. If others use the
                store too, it may be gone.
        """
