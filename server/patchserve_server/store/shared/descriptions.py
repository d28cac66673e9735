"""References and their descriptions, from the records of a shared store."""

from __future__ import annotations

from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference import Reference, ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.store.generation import GenerationContent
from patchserve_server.store.records import Manifest
from patchserve_server.store.shared.records import SharedPointer, StoredRevision


def info_of(pointer: SharedPointer, made: StoredRevision, manifest: Manifest) -> ReferenceInfo:
    """The description of the current or the previous revision, whose manifest this is."""
    bank = made.bank
    return ReferenceInfo(
        reference_id=ReferenceId(pointer.reference_id),
        revision=Revision(made.revision),
        create_time=pointer.create_time,
        update_time=made.update_time,
        spec=manifest.spec,
        options=manifest.options,
        calibration=manifest.calibration,
        sensitivity=manifest.sensitivity,
        images=manifest.images or (ReferenceImage(),) * bank.image_count,
        input_shape=InputShape(bank.height_px, bank.width_px),
        patch_count=bank.vector_count,
        feature_dim=bank.feature_dim,
        bank_bytes=bank.array_bytes,
        views_per_image=manifest.views_per_image,
        previous_revision=_previous_of(pointer, made),
        operation=made.operation,
    )


def reference_of(pointer: SharedPointer, made: StoredRevision, content: GenerationContent) -> Reference:
    """The current or the previous revision, whose content this is."""
    return Reference(
        reference_id=ReferenceId(pointer.reference_id),
        revision=Revision(made.revision),
        create_time=pointer.create_time,
        update_time=made.update_time,
        model=content.model,
        images=content.images,
        previous_revision=_previous_of(pointer, made),
        operation=made.operation,
    )


def _previous_of(pointer: SharedPointer, made: StoredRevision) -> Revision | None:
    if made is not pointer.current or pointer.previous is None:
        return None
    return Revision(pointer.previous.revision)
