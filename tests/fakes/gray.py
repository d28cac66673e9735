"""References and images of one gray level, for the fake detector."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from fakes.detector import INPUT_SIZE_PX, FakeScorer, fake_model
from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.serving.reference_use import OpenReference

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def gray_input(level: int) -> np.ndarray:
    return np.full((INPUT_SIZE_PX, INPUT_SIZE_PX, 3), level, np.uint8)


def gray_png(level: int, size_px: tuple[int, int] = (24, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size_px, (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def reference(
    reference_id: str = "default", level: int = 100, images: int = 1, options: ReferenceOptions | None = None
) -> Reference:
    inputs = np.stack([gray_input(level)] * images)
    model = fake_model(inputs, options or ReferenceOptions())
    return Reference(ReferenceId(reference_id), revision_of(model), CREATED, CREATED, model)


def scorer(reference: Reference) -> FakeScorer:
    return FakeScorer(reference.model, reference.model.bank.nbytes)


def open_reference(reference: Reference) -> OpenReference:
    return OpenReference(reference.info, scorer(reference))
