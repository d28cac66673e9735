"""Small references with random rng."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.reference import (
    Calibration,
    CalibrationMethod,
    EmbeddingSpec,
    MemoryBank,
    Reference,
    ReferenceModel,
    ReferenceOperation,
    ScoreSpread,
)
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ScoringProfile
from patchserve_server.domain.subspace import Subspace

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


def make_model(seed: int = 0, *, images: int = 3, patches: int = 60, dim: int = 8, size_px: int = 4) -> ReferenceModel:
    rng = np.random.default_rng(seed)
    bank = MemoryBank(
        patches=rng.standard_normal((patches, dim), dtype=np.float32),
        image_index=np.sort(rng.integers(0, images, patches, dtype=np.int32)),
        grid_index=rng.integers(0, 196, patches, dtype=np.int32),
        spacing=rng.uniform(0.1, 2, patches).astype(np.float32),
        inputs=rng.integers(0, 256, (images, size_px, size_px, 3), dtype=np.uint8),
    )
    spec = EmbeddingSpec("made-up", "ab" * 32, "none", "fp32")
    options = ReferenceOptions(
        coreset=CoresetOptions(ratio=0.1),
        search_radius=0.25,
        region_of_interest=(((0.0, 0.0), (1.0, 0.0), (0.5, 0.75)),),
    )
    scores = tuple(np.linspace(0.25, 0.5, images).tolist()) if images > 1 else ()
    spread = ScoreSpread(count=images, min=0.25, mean=1 / 3, stddev=0.1, max=0.5, scores=scores)
    calibration = Calibration(
        CalibrationMethod.LEAVE_ONE_OUT, 0.7, 0.9, spread, false_alarm_rate=0.15, false_alarm_rate_upper=0.5
    )
    return ReferenceModel(spec, options, bank, calibration, views_per_image=2)


def make_subspace_model(seed: int = 0) -> ReferenceModel:
    model, rng = make_model(seed), np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(8, 5)))[0].T.astype(np.float32)
    bank = Subspace(rng.standard_normal(8, dtype=np.float32), np.ascontiguousarray(basis), model.bank.inputs)
    options = ReferenceOptions(ScoringProfile.SUBSPACE, region_of_interest=model.options.region_of_interest)
    return dataclasses.replace(model, options=options, bank=bank)


def make_reference(reference_id: str = "parcel", seed: int = 0, **sizes: int) -> Reference:
    """`seed` determines the content, the update_time and the operation."""
    made = named(make_model(seed, **sizes), reference_id, EPOCH + timedelta(seconds=seed))
    return dataclasses.replace(made, operation=[*ReferenceOperation, None][seed % 5])


def named(model: ReferenceModel, reference_id: str = "parcel", update_time: datetime = EPOCH) -> Reference:
    return Reference(ReferenceId(reference_id), revision_of(model), EPOCH, update_time, model)


def model_content(model: ReferenceModel) -> tuple[object, ...]:
    """A value that is equal for models that are equal bit for bit: arrays are bytes, so NaN equals itself."""
    arrays = [getattr(model.bank, field.name) for field in dataclasses.fields(model.bank)]
    bits = tuple((array.dtype.str, array.shape, array.tobytes()) for array in arrays)
    return (repr((model.spec, model.options, model.calibration, model.sensitivity, model.views_per_image)), bits)


def content(reference: Reference) -> tuple[object, ...]:
    times = (reference.create_time, reference.update_time)
    names = (reference.reference_id, reference.revision, *times, reference.operation)
    return (names, reference.images, model_content(reference.model))
