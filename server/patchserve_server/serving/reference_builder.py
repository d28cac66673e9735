"""Images of undamaged items become a reference."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from patchserve_server import imaging
from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import BankMismatchError, InvalidImageError, InvalidInputError, PreconditionError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadProgress, LoadStage
from patchserve_server.domain.ports import Detector
from patchserve_server.domain.reference import DEFAULT_REFERENCE_ID, Reference, ReferenceModel, ReferenceOptions
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.load_tracker import LoadTracker, TrackedLoad


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a reference is to be loaded."""

    reference_id: str = DEFAULT_REFERENCE_ID
    append: bool = False
    chosen: Mapping[str, Any] = field(default_factory=dict)  # ReferenceOptions by name; others as loaded, or default
    expected_revision: str = ""  # empty: whatever is there


class ReferenceBuilder:
    """Builds references. Decoding shares the images' pool; fitting has threads of its own: inference goes on."""

    def __init__(
        self,
        detector: Detector,
        catalog: Catalog,
        *,
        images: Executor,
        fitting: Executor,
        limits: imaging.ImageLimits,
        max_images: int,
    ) -> None:
        self._detector = detector
        self._catalog = catalog
        self._images = images
        self._fitting = fitting
        self._limits = limits
        self._max_images = max_images
        self._board = LoadTracker()

    def active_loads(self, reference_id: str = "") -> list[LoadProgress]:
        """How far the loads of this reference are, or all loads where it is empty; the oldest first."""
        return self._board.snapshot(reference_id)

    async def load(self, options: LoadOptions, images: AsyncIterator[bytes], image_total: int = 0) -> Reference:
        """Builds, saves and serves a revision; the one before serves until then.

        Args:
            options: everything but the images.
            images: encoded images.
            image_total: how many there are, for those who ask how far it is; 0: unknown.

        Raises:
            InvalidInputError: no image, too many, a bad one (named as `images[i]`) or an option that does not fit.
            ReferenceNotFoundError, RevisionMismatchError, BankMismatchError: there is nothing fitting to append to.
            ReferenceChangedError: another call changed what was being appended to.
            ExhaustedError: no room for the bank, in memory or in the store. Nothing is lost in any of these.
        """
        with self._board.entry(options.reference_id, image_total) as entry:
            return await self._load(options, images, entry)

    async def _load(self, options: LoadOptions, images: AsyncIterator[bytes], entry: TrackedLoad) -> Reference:
        base = await self._base(options)
        inputs = await self._decode_all(images, 0 if base is None else len(base.model.bank.inputs), entry)
        entry.reached(LoadStage.EMBED, 0, len(inputs))  # it may have to wait for a thread
        model, revision = await self._fit(options, base, inputs, entry)
        entry.reached(LoadStage.SAVE, 0, 1)
        now = datetime.now(UTC)
        before = base or self._catalog.find(options.reference_id)
        reference = Reference(
            reference_id=options.reference_id,
            revision=revision,
            create_time=before.create_time if before else now,
            update_time=now,
            model=model,
        )
        await self._catalog.publish(reference, replaces=base)
        return reference

    async def _base(self, options: LoadOptions) -> Reference | None:
        """What is appended to; None where the load replaces."""
        if not options.append:
            if options.expected_revision:
                self._catalog.facts(options.reference_id, options.expected_revision)
            return None
        base = await self._catalog.get(options.reference_id, options.expected_revision)
        for name, value in options.chosen.items():
            if getattr(base.model.options, name) != value:
                message = (
                    f'Reference "{base.reference_id}" was loaded with another {name}, which APPEND keeps. Leave {name} '
                    "out, or load the reference again with REPLACE."
                )
                raise PreconditionError(base.reference_id, message)
        return base

    async def _decode_all(self, images: AsyncIterator[bytes], already: int, entry: TrackedLoad) -> list[ModelInputs]:
        inputs: list[ModelInputs] = []
        size_px = self._detector.info.input_size_px
        async for data in images:
            if already + len(inputs) >= self._max_images:
                message = f"A reference holds at most {self._max_images} images."
                raise InvalidInputError("images", message)
            try:
                inputs.append(
                    await asyncio.get_running_loop().run_in_executor(self._images, self._decode, data, size_px)
                )
            except InvalidImageError as error:
                raise error.at(f"images[{len(inputs)}]") from error
            entry.received(len(inputs))
        if not inputs:
            message = "A reference needs at least one image of an undamaged item."
            raise InvalidInputError("images", message)
        return inputs

    def _decode(self, data: bytes, size_px: int) -> ModelInputs:
        return imaging.to_model_input(imaging.decode(data, self._limits), size_px)

    async def _fit(
        self, options: LoadOptions, base: Reference | None, inputs: list[ModelInputs], entry: TrackedLoad
    ) -> tuple[ReferenceModel, str]:
        """The model and its revision."""
        abandoned = threading.Event()

        def progress(stage: LoadStage, done: int, total: int) -> None:
            if abandoned.is_set():
                raise _AbandonedError
            entry.reached(stage, done, total)

        def fit() -> tuple[ReferenceModel, str]:
            images = np.stack(inputs)  # (N, S, S, 3)
            if base is not None:
                model = self._detector.extend(base.model, images, progress)
            else:
                model = self._detector.fit(images, ReferenceOptions(**options.chosen), progress)
            return model, revision_of(model)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._fitting, fit)
        except BankMismatchError as error:
            raise error.of(options.reference_id) from error
        finally:
            abandoned.set()


class _AbandonedError(Exception):
    """Ends a fit whose caller has gone. Nobody sees it."""
