"""The images that a reference was built from, as its bank keeps them."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

from patchserve_server import imaging
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.words import counted
from patchserve_server.serving.admission import ONE, Capacity, Permit
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.fairness import FairSemaphore


@dataclass(frozen=True, slots=True, eq=False)
class EncodedReferenceImage:
    """A model input of a bank, for people to look at."""

    png: bytes
    shape: InputShape
    name: str  # empty: none
    revision: Revision


class ReferenceImages:
    """Reads the model inputs of references. They are encoded on the pool of images, in turn with inspections.

    Args:
        catalog: opens the references.
        images: the pool that encodes.
        turns: limits how many images are processed at once.
    """

    def __init__(self, catalog: Catalog, images: Executor, turns: FairSemaphore) -> None:
        self._catalog = catalog
        self._images = images
        self._turns = turns

    async def read(
        self, permit: Permit, reference_id: ReferenceId, index: int, expected_revision: Revision | None = None
    ) -> EncodedReferenceImage:
        """The model input with this index. The permit grows to its size.

        Raises:
            InvalidInputError: there is no image with this index.
            QueueFullError: there is no capacity for one more image.
            The errors of Catalog.use.
        """
        permit.grow(ONE)
        async with self._catalog.use(reference_id, expected_revision) as reference:
            info, inputs = reference.info, reference.scorer.model.bank.inputs
            if index >= len(inputs):
                count = counted(len(inputs), "image")
                message = f'Reference "{reference_id}" has {count}, so index must be 0 to {len(inputs) - 1}.'
                raise InvalidInputError("index", message)
            permit.grow(Capacity(1, inputs[index].nbytes))
            async with self._turns.turn(permit.flow):
                png = await asyncio.get_running_loop().run_in_executor(self._images, imaging.encode_png, inputs[index])
            return EncodedReferenceImage(png, info.input_shape, info.images[index].name, info.revision)
