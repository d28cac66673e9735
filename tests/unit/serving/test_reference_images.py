"""ReferenceImages: the model inputs of a bank as PNG, in turn with inspections."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from fakes.catalogs import CatalogFactory, publish
from fakes.detector import INPUT_SIZE_PX
from fakes.gray import gray_input, reference
from fakes.waiting import settle
from PIL import Image

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    InvalidInputError,
    QueueFullError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.serving.admission import Admission, Capacity
from patchserve_server.serving.fairness import FairSemaphore, FlowKey
from patchserve_server.serving.reference_images import ReferenceImages
from patchserve_server.store import MemoryReferenceStore

ADMISSION_LIMIT = Capacity(2, 10**6)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def admission() -> Admission:
    return Admission("image", ADMISSION_LIMIT, share=1.0, largest=Capacity(1, 10**6))


def two_images() -> Reference:
    made = reference(images=2)
    inputs = np.stack([gray_input(10), gray_input(20)])
    model = replace(made.model, bank=replace(made.model.bank, inputs=inputs))
    images = (ReferenceImage("ten.png", "image/png", 4, 4, 9), ReferenceImage())
    return replace(made, model=model, images=images, revision=revision_of(model))


async def test_an_image_is_the_model_input(
    factory: CatalogFactory, pool: ThreadPoolExecutor, admission: Admission
) -> None:
    catalog = factory.catalog(MemoryReferenceStore())
    published = await publish(catalog, two_images())
    images = ReferenceImages(catalog, pool, FairSemaphore(1))
    for index, (level, name) in enumerate([(10, "ten.png"), (20, "")]):
        with admission.permit("caller") as permit:
            image = await images.read(permit, DEFAULT_REFERENCE_ID, index, published.revision)
            assert permit.capacity == Capacity(1, gray_input(0).nbytes)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.png))), gray_input(level))
        assert (image.shape.sides_px, image.name, image.revision) == (
            (INPUT_SIZE_PX, INPUT_SIZE_PX),
            name,
            published.revision,
        )


async def test_what_does_not_exist_is_not_returned(
    factory: CatalogFactory, pool: ThreadPoolExecutor, admission: Admission
) -> None:
    catalog = factory.catalog(MemoryReferenceStore())
    images = ReferenceImages(catalog, pool, FairSemaphore(1))
    with admission.permit("caller") as permit:
        with pytest.raises(ReferenceNotFoundError):
            await images.read(permit, DEFAULT_REFERENCE_ID, 0)
        await publish(catalog, two_images())
        with pytest.raises(InvalidInputError, match="has 2 images, so index must be 0 to 1") as caught:
            await images.read(permit, DEFAULT_REFERENCE_ID, 2)
        assert caught.value.field == "index"
        with pytest.raises(RevisionMismatchError):
            await images.read(permit, DEFAULT_REFERENCE_ID, 0, reference(level=9).revision)


async def test_it_takes_a_permit_and_its_turn(
    factory: CatalogFactory, pool: ThreadPoolExecutor, admission: Admission
) -> None:
    catalog = factory.catalog(MemoryReferenceStore())
    await publish(catalog, two_images())
    turns = FairSemaphore(1)
    images = ReferenceImages(catalog, pool, turns)
    with admission.acquire("other", Capacity(2)), admission.permit("caller") as permit:
        reading = images.read(permit, DEFAULT_REFERENCE_ID, 0)
        with pytest.raises(QueueFullError):
            await reading
    with admission.permit("caller") as permit:
        async with turns.turn(FlowKey("other")):
            task = asyncio.create_task(images.read(permit, DEFAULT_REFERENCE_ID, 0))
            await settle()
            assert not task.done()
        assert (await task).name == "ten.png"
