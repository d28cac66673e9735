"""Revisions that differ in sensitivity only: they have one bank, and so one scorer.

Everything here blocks, because a digest covers the whole bank.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference import Reference, ReferenceModel, ReferenceOperation
from patchserve_server.serving.reference_use import OpenReference


def tuned(opened: OpenReference, sensitivity: float) -> Reference:
    """The revision with another sensitivity."""
    info, model = opened.info, replace(opened.scorer.model, sensitivity=sensitivity)
    return Reference(
        info.reference_id,
        revision_of(model),
        info.create_time,
        datetime.now(UTC),
        model,
        info.images,
        operation=ReferenceOperation.TUNE,
    )


def can_score(scorer: Scorer, reference: Reference) -> bool:
    """Whether this scorer has the bank of this revision."""
    if _without_bank(scorer.model) != _without_bank(reference.model):
        return False  # without computing a digest
    return revision_of(replace(scorer.model, sensitivity=reference.model.sensitivity)) == reference.revision


def _without_bank(model: ReferenceModel) -> tuple[object, ...]:
    return model.spec, model.options, model.calibration, model.bank.vector_count
