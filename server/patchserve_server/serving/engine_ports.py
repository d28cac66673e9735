"""What the faces need of the engine, whether it is in this process or in another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from patchserve_server.domain.drift import Drift
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.domain.load_cost import LoadedReference
from patchserve_server.domain.load_progress import LoadProgress
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_image import NamedImage
from patchserve_server.domain.store_status import StoreStatus
from patchserve_server.serving.admission import Permit
from patchserve_server.serving.batching import BatchedScores
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.known_references import Listener
from patchserve_server.serving.reference_builder import LoadOptions
from patchserve_server.serving.reference_images import EncodedReferenceImage
from patchserve_server.serving.reference_transfer import Export, ImportOptions


class ReferenceInUse(Protocol):
    """A revision that stays open while somebody uses it."""

    @property
    def info(self) -> ReferenceInfo: ...


class References(Protocol):
    """All references by id, and their changes: `Catalog`, or its copy in a front."""

    @property
    def usable_count(self) -> int: ...

    def use(
        self, reference_id: ReferenceId, expected_revision: Revision | None = None
    ) -> AbstractAsyncContextManager[ReferenceInUse]: ...

    async def info(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> ReferenceInfo: ...

    def find(self, reference_id: ReferenceId) -> ReferenceInfo | None: ...

    async def has(self, reference_id: ReferenceId) -> bool: ...

    async def page(self, after_id: str, size: int) -> tuple[list[ReferenceInfo], bool]: ...

    async def store_status(self) -> StoreStatus: ...

    async def tune(
        self, reference_id: ReferenceId, sensitivity: float, expected_revision: Revision | None = None
    ) -> ReferenceInfo: ...

    async def restore(
        self, reference_id: ReferenceId, revision: Revision | None = None, expected_revision: Revision | None = None
    ) -> ReferenceInfo: ...

    async def history(self, reference_id: ReferenceId) -> list[ReferenceInfo]: ...

    async def delete(self, reference_id: ReferenceId, expected_revision: Revision | None = None) -> str: ...

    def listen(self, reference_id: ReferenceId, listener: Listener) -> AbstractContextManager[None]: ...


class Scoring(Protocol):
    """Scores images, in turn between clients: model inputs; and files, if there is `Drawing`."""

    async def score(self, reference: ReferenceInUse, image: ModelInputs | JpegFile, flow: FlowKey) -> BatchedScores:
        """The raw scores of one model input, (H, W, 3) uint8, or of a file.

        Args:
            reference: that `References.use` opened.
            image: in the input shape of the reference, or for a device that decodes it.
            flow: whose turn it takes.

        Raises:
            DeviceCodecError: the device cannot decode the file. Model inputs need no device.
        """


class Drawing(Protocol):
    """Draws overlays on the device that decodes, in turn between clients. Only such an engine has it."""

    async def draw(self, drawing: OverlayDrawing, flow: FlowKey) -> bytes:
        """The JPEG file of an overlay.

        Raises:
            DeviceCodecError: the device cannot draw it.
        """


class Loads(Protocol):
    """Builds references: `ReferenceBuilder`, or that of the engine."""

    async def load(
        self, options: LoadOptions, images: AsyncIterator[NamedImage], image_total: int = 0
    ) -> LoadedReference: ...

    async def list_loads(self, reference_id: ReferenceId | None = None) -> Sequence[LoadProgress]: ...


class Transfer(Protocol):
    """References as single files: `ReferenceTransfer`, or that of the engine."""

    def export(
        self, reference_id: ReferenceId, expected_revision: Revision | None
    ) -> AbstractAsyncContextManager[Export]: ...

    async def import_reference(self, options: ImportOptions, chunks: AsyncIterator[bytes]) -> ReferenceInfo: ...


class Drifts(Protocol):
    """The drift of references: `DriftWatch`, or that of the engine."""

    def add(self, reference_id: ReferenceId, revision: Revision, raw_score: float) -> None: ...

    def drift_of(self, reference: ReferenceInfo) -> Drift: ...


class ReferenceImageReader(Protocol):
    """Reads the images of references: `ReferenceImages`, or those of the engine."""

    async def read(
        self, permit: Permit, reference_id: ReferenceId, index: int, expected_revision: Revision | None = None
    ) -> EncodedReferenceImage: ...
