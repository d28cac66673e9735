"""References and their descriptions, from the records of a folder and of a shared store."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from patchserve_server.domain.reference import Reference, ReferenceInfo, ReferenceOperation
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.store.bank_file import DescribedBank
from patchserve_server.store.generation import GenerationContent
from patchserve_server.store.records import Manifest


class _Pointer(Protocol):
    @property
    def reference_id(self) -> str: ...

    @property
    def create_time(self) -> datetime: ...


class _Revision(Protocol):
    @property
    def revision(self) -> str: ...

    @property
    def update_time(self) -> datetime: ...

    @property
    def operation(self) -> ReferenceOperation | None: ...


def reference_of(pointer: _Pointer, made: _Revision, content: GenerationContent, previous: str | None) -> Reference:
    """The current or the previous revision, whose content this is.

    Args:
        pointer: says what belongs to the id.
        made: says what belongs to the revision.
        content: of the revision.
        previous: the revision that is kept besides this one.
    """
    return Reference(model=content.model, images=content.images, **_identity(pointer, made, previous))


def info_of(
    pointer: _Pointer, made: _Revision, manifest: Manifest, bank: DescribedBank, previous: str | None
) -> ReferenceInfo:
    """The description of a revision that has this manifest and such a bank; the other arguments as `reference_of`."""
    return ReferenceInfo(
        spec=manifest.spec,
        options=manifest.options,
        calibration=manifest.calibration,
        sensitivity=manifest.sensitivity,
        images=manifest.images or (ReferenceImage(),) * bank.image_count,
        input_shape=bank.input_shape,
        patch_count=bank.vector_count,
        feature_dim=bank.feature_dim,
        bank_bytes=bank.nbytes,
        views_per_image=manifest.views_per_image,
        **_identity(pointer, made, previous),
    )


def _identity(pointer: _Pointer, made: _Revision, previous: str | None) -> dict[str, Any]:
    """The fields that a `Reference` and a `ReferenceInfo` have in common."""
    return {
        "reference_id": ReferenceId(pointer.reference_id),
        "revision": Revision(made.revision),
        "create_time": pointer.create_time,
        "update_time": made.update_time,
        "previous_revision": None if previous is None else Revision(previous),
        "operation": made.operation,
    }
