"""Builds references from images of undamaged items."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from patchserve_server import imaging
from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    InvalidImageError,
    InvalidInputError,
    MemoryBudgetError,
    PreconditionError,
)
from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import AspectRatio, InputShape
from patchserve_server.domain.load_cost import LoadCost, LoadedReference
from patchserve_server.domain.load_progress import LoadProgress, LoadStage
from patchserve_server.domain.ports import Detector, Scorer
from patchserve_server.domain.reference import Reference, ReferenceInfo, ReferenceModel, ReferenceOperation
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.domain.reference_image import NamedImage, ReferenceImage
from patchserve_server.domain.reference_options import ReferenceOptions, RequestedOptions
from patchserve_server.domain.sensitivity import DEFAULT_SENSITIVITY, check_sensitivity
from patchserve_server.domain.words import counted
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.load_tracker import LoadTracker, TrackedLoad
from patchserve_server.serving.reference_use import OpenReference

_LONG = 2.0  # from this ratio of its sides, an image is much longer than wide
_MEASURED_RUNS = 3
_MEASURE_S = 0.5


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a reference.

    Raises:
        InvalidInputError: the sensitivity is out of its range.
    """

    reference_id: ReferenceId = DEFAULT_REFERENCE_ID
    append: bool = False
    requested: RequestedOptions = field(default_factory=RequestedOptions)
    expected_revision: Revision | None = None  # None: any
    sensitivity: float | None = None  # None: that of the base, or 1

    def __post_init__(self) -> None:
        if self.sensitivity is not None:
            check_sensitivity(self.sensitivity)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    scorer: Scorer
    model: ReferenceModel  # the scorer's, with the sensitivity
    revision: Revision
    cost: LoadCost


class ReferenceBuilder:
    """Builds references. Decoding uses the pool of images; fitting has its own threads, so inference continues."""

    def __init__(
        self,
        detector: Detector,
        catalog: Catalog,
        *,
        images: Executor,
        fitting: Executor,
        limits: imaging.ImageLimits,
        max_images: int,
        max_bytes: int,
        events: Events = NOBODY,
    ) -> None:
        """`max_bytes`: the memory of one load while it builds the bank. `events` hear of every load."""
        self._detector = detector
        self._catalog = catalog
        self._images = images
        self._fitting = fitting
        self._limits = limits
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._tracker = LoadTracker(events)

    def active_loads(self, reference_id: ReferenceId | None = None) -> list[LoadProgress]:
        """The progress of the loads of this reference, or of all loads; the oldest first."""
        return self._tracker.active_loads(reference_id)

    async def list_loads(self, reference_id: ReferenceId | None = None) -> list[LoadProgress]:
        """The same, in the form of `engine_ports.Loads`."""
        return self.active_loads(reference_id)

    async def load(
        self, options: LoadOptions, images: AsyncIterator[NamedImage], image_total: int = 0
    ) -> LoadedReference:
        """Builds, saves and serves a revision. The old revision serves until then, and after an error.

        Args:
            options: everything except the images.
            images: encoded images and their names.
            image_total: how many there are, for ListLoads; 0: unknown.

        Raises:
            InvalidInputError: no image, too many, or a bad one (named as `images[i]`).
            ReferenceNotFoundError, RevisionMismatchError, BankMismatchError, PreconditionError: there is no
                reference that APPEND can extend.
            ReferenceChangedError: another call changed the reference in the meantime.
            MemoryBudgetError: the images need too much memory while the bank is built; raised before it is spent.
            ExhaustedError: too little space for the bank, in memory or in the store.
            StorageUnavailableError: the store cannot be reached; raised before work is done if that is known.
        """
        self._catalog.check_reachable()
        with self._tracker.track(options.reference_id, image_total, appends=options.append) as load:
            if options.append:
                async with self._catalog.use(options.reference_id, options.expected_revision) as base:
                    _check_same_options(options, base.info)
                    return await self._build(options, base, base.info, images, load)
            expected = options.expected_revision
            replaces = None if expected is None else await self._catalog.info(options.reference_id, expected)
            return await self._build(options, None, replaces, images, load)

    async def _build(
        self,
        options: LoadOptions,
        base: OpenReference | None,
        replaces: ReferenceInfo | None,
        images: AsyncIterator[NamedImage],
        load: TrackedLoad,
    ) -> LoadedReference:
        described = () if base is None else base.info.images
        fit_options = options.requested.with_defaults() if base is None else base.info.options
        white_level = fit_options.white_level
        shape = _InputShapeOfLoad(
            self._detector, fit_options, None if base is None else base.info.input_shape, self._max_bytes
        )
        total = len(described) + load.progress.steps_total  # 0 follow if it is not known how many
        self._check_count(total)
        shape.expect(total)
        inputs, new_images = await self._decode_all(images, len(described), shape, white_level, load)
        load.reached(LoadStage.EMBED, 0, len(inputs))  # it may have to wait for a thread
        fitted = await self._fit(options, base, inputs, load)
        load.reached(LoadStage.SAVE, 0, 1)
        update_time = datetime.now(UTC)
        previous = base.info if base is not None else await self._catalog.current(options.reference_id)
        reference = Reference(
            reference_id=options.reference_id,
            revision=fitted.revision,
            create_time=previous.create_time if previous else update_time,
            update_time=update_time,
            model=fitted.model,
            images=(*described, *new_images),
            operation=ReferenceOperation.LOAD if base is None else ReferenceOperation.APPEND,
        )
        info = await self._catalog.publish(reference, fitted.scorer, replaces=replaces)
        return LoadedReference(info, fitted.cost)

    def _check_count(self, images: int) -> None:
        if images > self._max_images:
            raise InvalidInputError("images", f"A reference holds at most {self._max_images} images.")

    async def _decode_all(
        self,
        images: AsyncIterator[NamedImage],
        base_count: int,
        shape: _InputShapeOfLoad,
        white_level: int | None,
        load: TrackedLoad,
    ) -> tuple[list[ModelInputs], list[ReferenceImage]]:
        inputs: list[ModelInputs] = []
        described: list[ReferenceImage] = []
        loop = asyncio.get_running_loop()
        async for image in images:
            self._check_count(base_count + len(inputs) + 1)
            shape.expect(base_count + len(inputs) + 1)
            try:
                decoded = await loop.run_in_executor(self._images, self._decode, image, shape, white_level)
            except InvalidImageError as error:
                raise error.with_field(f"images[{len(inputs)}]") from error
            inputs.append(decoded[0])
            described.append(decoded[1])
            load.received(len(inputs))
        if not inputs:
            message = "A reference needs at least one image of an undamaged item."
            raise InvalidInputError("images", message)
        return inputs, described

    def _decode(
        self, image: NamedImage, shape: _InputShapeOfLoad, white_level: int | None
    ) -> tuple[ModelInputs, ReferenceImage]:
        decoded = imaging.decode_image(image.data, self._limits, white_level)
        media_type = imaging.media_type_of(image.data)
        described = ReferenceImage(image.name, media_type, *decoded.size, len(image.data))
        return imaging.to_model_input(decoded, shape.of_image(decoded.size)), described

    async def _fit(
        self,
        options: LoadOptions,
        base: OpenReference | None,
        inputs: list[ModelInputs],
        load: TrackedLoad,
    ) -> _Fitted:
        sensitivity = options.sensitivity or DEFAULT_SENSITIVITY
        if base is not None:
            sensitivity = base.info.sensitivity
        caller_left = threading.Event()

        def progress(stage: LoadStage, done: int, total: int) -> None:
            if caller_left.is_set():
                raise _AbandonedError
            load.reached(stage, done, total)

        def fit() -> _Fitted:
            load.begin_to_fit()
            stacked = np.stack(inputs)  # (N, H, W, 3)
            inputs.clear()  # one copy is enough
            if base is None:
                scorer = self._detector.fit(stacked, options.requested.with_defaults(), progress)
            else:
                scorer = self._detector.extend(base.scorer, stacked, progress)
            model = replace(scorer.model, sensitivity=sensitivity)
            return _Fitted(scorer, model, revision_of(model), _measured_cost(scorer))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._fitting, fit)
        finally:
            caller_left.set()


def _check_same_options(options: LoadOptions, base: ReferenceInfo) -> None:
    name = options.requested.first_difference(base.options)
    if options.sensitivity not in (None, base.sensitivity):
        name = "sensitivity"
    if name is not None:
        message = (
            f'Reference "{base.reference_id}" has another {name}, which APPEND cannot change. Leave {name} '
            "out, or load the reference again with REPLACE."
        )
        raise PreconditionError(base.reference_id, message)


class _InputShapeOfLoad:
    """The shape of the model inputs of one load: that of the base, or the one that its first image decides.

    With it the memory of the load is known, so it is compared with the limit here.
    """

    def __init__(self, detector: Detector, options: ReferenceOptions, base: InputShape | None, max_bytes: int) -> None:
        self._detector, self._options, self._shape, self._max_bytes = detector, options, base, max_bytes
        self._image_count, self._advice = 0, ""

    def expect(self, image_count: int) -> None:
        """The reference will have this many images or more.

        Raises:
            MemoryBudgetError: their vectors need too much memory. Without a shape, `of_image` raises it.
        """
        self._image_count = max(self._image_count, image_count)
        if self._shape is None:
            return
        needed_bytes = self._detector.fit_nbytes(self._shape, self._options, self._image_count)
        if needed_bytes > self._max_bytes:
            message = (
                f"Building a bank from {counted(self._image_count, 'image')} of {self._shape} pixels needs "
                f"{needed_bytes / 2**20:.0f} MiB; the server allows {self._max_bytes / 2**20:.0f} MiB "
                f"(--max-bank-mib). {self._advice}Load fewer images, or choose a smaller input. A coreset makes the "
                "bank smaller, but not this work."
            )
            raise MemoryBudgetError(message)

    def of_image(self, size_px: tuple[int, int]) -> InputShape:
        """The shape for the next image of the load, which has this (width, height)."""
        if self._shape is None:
            self._shape = self._detector.input_shape(self._options, size_px)
            if self._options.input.aspect is AspectRatio.SQUEEZE and max(size_px) >= _LONG * min(size_px):
                width_px, height_px = size_px
                self._advice = (
                    f"Images of {width_px} x {height_px} pixels become squares: keep their proportions (aspect KEEP). "
                )
            self.expect(self._image_count)
        return self._shape


def _measured_cost(scorer: Scorer) -> LoadCost:
    """Scores an image of the reference. The first run may take longer than later ones, so a fast one is run again."""
    inputs, durations_s = scorer.model.bank.inputs[:1], list[float]()
    while sum(durations_s) < _MEASURE_S and len(durations_s) < _MEASURED_RUNS:
        started_at_s = time.perf_counter()
        scorer.score(inputs)
        durations_s.append(time.perf_counter() - started_at_s)
    return LoadCost(scorer.patches_per_image, scorer.nbytes, 1000 * min(durations_s), scorer.search_recall())


class _AbandonedError(Exception):
    """Ends a fit whose caller has left. It is never reported."""
