"""ReferenceBuilder: a load makes a new served revision, or changes nothing."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.waiting import until

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import (
    EmptyImageError,
    InvalidInputError,
    MemoryBudgetError,
    PreconditionError,
    ReferenceChangedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.domain.input_options import AspectRatio, InputOptions
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import KeptRevision
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.domain.reference_image import NamedImage, ReferenceImage
from patchserve_server.domain.reference_options import (
    CoresetOptions,
    ReferenceOptions,
    RequestedOptions,
    ScoringProfile,
)
from patchserve_server.imaging import ImageLimits
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.reference_builder import LoadOptions, ReferenceBuilder
from patchserve_server.store import MemoryReferenceStore

MAX_IMAGES = 4
MAX_BYTES = 2**20
NOTHING: Mapping[str, Any] = MappingProxyType({})
LEFT_HALF = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)
CHOSEN: dict[str, Any] = {
    "profile": ScoringProfile.PAPER,
    "coreset": CoresetOptions(ratio=0.5),
    "search_radius": 0.25,
    "region_of_interest": LEFT_HALF,
    "false_alarm_rate": 0.02,
}


class ObservedStore(MemoryReferenceStore):
    """Calls `before_save` before each save."""

    before_save: Callable[[], object] = staticmethod(lambda: None)

    def save(self, reference: Reference, base: Revision | None = None) -> KeptRevision | None:
        self.before_save()
        return super().save(reference, base)


class Bench:
    """A reference builder over fakes."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.detector = FakeDetector()
        self.store = ObservedStore()
        self.catalog = Catalog(self.store, self.detector, storage=pool, opening=pool, max_bytes=MAX_BYTES)
        self.builder = ReferenceBuilder(
            self.detector,
            self.catalog,
            images=pool,
            fitting=pool,
            limits=ImageLimits(),
            max_images=MAX_IMAGES,
            max_bytes=MAX_BYTES,
        )

    async def load(
        self, *levels: int, requested: Mapping[str, Any] = MappingProxyType({}), **options: Any
    ) -> Reference:
        """Load gray images and return the stored reference."""
        load_options = LoadOptions(requested=RequestedOptions(**requested), **options)
        info = (await self.builder.load(load_options, images(*levels))).info
        stored = self.store.load(info.reference_id)
        assert await self.catalog.info(info.reference_id) == stored.info
        return stored


async def images(*levels: int) -> AsyncIterator[NamedImage]:
    for level in levels:
        yield NamedImage(gray_png(level) if level >= 0 else b"", f"{level}.png")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(4) as pool:
        yield Bench(pool)


async def test_a_loaded_reference_is_served_and_its_revision_depends_on_its_content_only(bench: Bench) -> None:
    loaded = await bench.load(10, 20)
    assert loaded.revision == revision_of(loaded.model)
    assert (await bench.load(10, 20)).revision == loaded.revision
    assert (await bench.load(20, 10)).revision != loaded.revision


async def test_options_that_a_load_leaves_out_have_their_defaults(bench: Bench) -> None:
    assert (await bench.load(10)).model.options == ReferenceOptions()
    loaded = await bench.load(10, requested={"search_radius": 0.25, "region_of_interest": LEFT_HALF})
    assert loaded.model.options == ReferenceOptions(search_radius=0.25, region_of_interest=LEFT_HALF)


@pytest.mark.parametrize("named", [(), ("search_radius",), tuple(CHOSEN)])
async def test_append_keeps_the_images_and_options_of_the_base(bench: Bench, named: tuple[str, ...]) -> None:
    first = await bench.load(10, requested=CHOSEN)
    requested = {name: CHOSEN[name] for name in named}
    grown = await bench.load(20, append=True, requested=requested, expected_revision=first.revision)
    assert grown.model.bank.inputs[:, 0, 0, 0].tolist() == [10, 20]
    assert grown.model.options == ReferenceOptions(**CHOSEN)
    assert grown.create_time == first.create_time
    assert grown.update_time >= first.update_time


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"reference_id": ReferenceId("nobody")}, ReferenceNotFoundError),
        ({"expected_revision": Revision("0" * 64)}, RevisionMismatchError),
    ],
)
async def test_an_append_to_an_unknown_reference_or_another_revision_fails(
    bench: Bench, options: dict[str, Any], error: type[Exception]
) -> None:
    await bench.load(10)
    with pytest.raises(error):
        await bench.load(20, append=True, **options)


@pytest.mark.parametrize(
    ("loaded_with", "name", "value"),
    [
        *[({}, name, value) for name, value in CHOSEN.items()],
        (CHOSEN, "profile", ScoringProfile.NOTEBOOK),
        (CHOSEN, "coreset", CoresetOptions(max_patches=16)),
        (CHOSEN, "coreset", CoresetOptions()),
        (CHOSEN, "search_radius", 0.5),
        (CHOSEN, "false_alarm_rate", 0.03),
        (CHOSEN, "region_of_interest", (*LEFT_HALF, ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0)))),
    ],
)
async def test_an_append_with_a_different_option_fails_and_names_the_option(
    bench: Bench, loaded_with: dict[str, Any], name: str, value: object
) -> None:
    first = await bench.load(10, requested=loaded_with)
    message = (
        f'Reference "default" has another {name}, which APPEND cannot change. Leave {name} out, or '
        "load the reference again with REPLACE."
    )
    with pytest.raises(PreconditionError, match=f"^{re.escape(message)}$"):
        await bench.load(20, append=True, requested={**loaded_with, name: value})
    assert await bench.catalog.info(DEFAULT_REFERENCE_ID) == first.info


async def test_what_is_known_of_each_image_is_kept_in_the_order_of_the_bank(bench: Bench) -> None:
    first = await bench.load(10, 20)
    assert first.images == tuple(
        ReferenceImage(f"{level}.png", "image/png", 24, 20, len(gray_png(level))) for level in (10, 20)
    )
    grown = await bench.load(30, append=True)
    assert [image.name for image in grown.images] == ["10.png", "20.png", "30.png"]
    assert (await bench.catalog.tune(DEFAULT_REFERENCE_ID, 2.0)).images == grown.images


async def test_an_append_to_images_of_which_nothing_is_known_says_so(bench: Bench) -> None:
    first = await bench.load(10, 20)
    base = await bench.catalog.tune(DEFAULT_REFERENCE_ID, 2.0)
    nameless = replace(bench.store.load(DEFAULT_REFERENCE_ID), images=())
    async with bench.catalog.use(DEFAULT_REFERENCE_ID) as opened:
        await bench.catalog.publish(nameless, opened.scorer, replaces=base)
    grown = await bench.load(30, append=True)
    assert [image.media_type for image in grown.images] == ["", "", "image/png"]
    assert grown.info.image_count == len(first.images) + 1


async def test_append_keeps_the_sensitivity_and_replace_resets_it(bench: Bench) -> None:
    assert (await bench.load(10)).model.sensitivity == 1
    tuned = await bench.catalog.tune(DEFAULT_REFERENCE_ID, 2.5)
    grown = await bench.load(20, append=True)
    assert grown.model.sensitivity == 2.5
    assert (await bench.load(30, append=True, sensitivity=2.5)).model.sensitivity == 2.5
    with pytest.raises(PreconditionError, match="has another sensitivity, which APPEND cannot change"):
        await bench.load(40, append=True, sensitivity=2.0)
    assert (await bench.load(10)).revision != tuned.revision
    assert (await bench.load(10, sensitivity=2.5)).revision == tuned.revision
    assert (await bench.load(10)).model.sensitivity == 1


@pytest.mark.parametrize("sensitivity", [0, 0.05, 11, float("nan")])
async def test_a_load_with_a_sensitivity_out_of_range_fails(bench: Bench, sensitivity: float) -> None:
    with pytest.raises(InvalidInputError, match=r"sensitivity must be 0\.1 to 10"):
        await bench.load(10, sensitivity=sensitivity)


async def test_a_tune_during_an_append_makes_the_append_fail(bench: Bench) -> None:
    """Otherwise one of the two changes would be lost."""
    await bench.load(10)
    bench.detector.fit_gate.clear()
    appending = asyncio.create_task(bench.load(20, append=True))
    await until(lambda: [load.stage for load in bench.builder.active_loads()] == [LoadStage.EMBED])
    tuned = await bench.catalog.tune(DEFAULT_REFERENCE_ID, 2.0)
    bench.detector.fit_gate.set()
    with pytest.raises(ReferenceChangedError):
        await appending
    assert await bench.catalog.info(DEFAULT_REFERENCE_ID) == tuned


async def test_a_tune_during_a_replacement_does_not_stop_it(bench: Bench) -> None:
    await bench.load(10)
    bench.detector.fit_gate.clear()
    loading = asyncio.create_task(bench.load(20))
    await until(lambda: [load.stage for load in bench.builder.active_loads()] == [LoadStage.EMBED])
    await bench.catalog.tune(DEFAULT_REFERENCE_ID, 2.0)
    bench.detector.fit_gate.set()
    assert (await loading).model.sensitivity == 1
    assert (await bench.catalog.info(DEFAULT_REFERENCE_ID)).sensitivity == 1


async def test_an_invalid_image_is_reported_by_its_field_and_nothing_changes(bench: Bench) -> None:
    before = await bench.load(10)
    with pytest.raises(EmptyImageError) as caught:
        await bench.load(1, 2, -1)
    assert caught.value.field == "images[2]"
    with pytest.raises(InvalidInputError, match="at least one"):
        await bench.load()
    with pytest.raises(InvalidInputError, match="at most 4"):
        await bench.load(1, 2, 3, 4, append=True)
    assert await bench.catalog.info(DEFAULT_REFERENCE_ID) == before.info


async def test_of_two_concurrent_appends_one_fails_and_no_image_is_lost(bench: Bench) -> None:
    await bench.load(10)
    bench.detector.fit_gate.clear()
    both = [asyncio.create_task(bench.load(level, append=True)) for level in (20, 30)]
    await until(lambda: [load.stage for load in bench.builder.active_loads()] == [LoadStage.EMBED] * 2)
    bench.detector.fit_gate.set()
    results = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(result, ReferenceChangedError) for result in results) == 1
    assert (await bench.catalog.info(DEFAULT_REFERENCE_ID)).image_count == 2


async def test_of_two_concurrent_replacements_of_one_revision_one_fails(bench: Bench) -> None:
    base = await bench.load(10)
    bench.detector.fit_gate.clear()
    both = [asyncio.create_task(bench.load(level, expected_revision=base.revision)) for level in (20, 30)]
    await until(lambda: [load.stage for load in bench.builder.active_loads()] == [LoadStage.EMBED] * 2)
    bench.detector.fit_gate.set()
    results = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(result, ReferenceChangedError) for result in results) == 1


async def test_a_fit_stops_when_its_caller_leaves(bench: Bench) -> None:
    bench.detector.fit_gate.clear()
    load = asyncio.create_task(bench.load(10))
    await until(lambda: [load.stage for load in bench.builder.active_loads()] == [LoadStage.EMBED])
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    fitted = threading.Event()
    bench.detector.fitted = fitted.set  # would be called after the progress report, where the fit stops
    bench.detector.fit_gate.set()
    assert not fitted.wait(0.2)
    assert bench.catalog.find(DEFAULT_REFERENCE_ID) is None


async def test_the_progress_of_a_load_can_be_read_until_it_ends(bench: Bench) -> None:
    progress: list[tuple[LoadStage, int, int, int]] = []

    def record() -> None:
        (load,) = bench.builder.active_loads(ReferenceId("belt"))
        progress.append((load.stage, load.steps_done, load.steps_total, load.image_count))

    async def recorded_images() -> AsyncIterator[NamedImage]:
        for level in (10, 20):
            record()
            yield NamedImage(gray_png(level))
        record()

    bench.detector.fitted = record
    bench.store.before_save = record
    assert bench.builder.active_loads() == []
    await bench.builder.load(LoadOptions(ReferenceId("belt")), recorded_images(), 2)
    receiving = [(LoadStage.RECEIVE, count, 2, count) for count in (0, 1, 2)]
    assert progress == [*receiving, (LoadStage.EMBED, 2, 2, 2), (LoadStage.SAVE, 0, 1, 2)]
    assert bench.builder.active_loads() == []


async def test_a_load_that_waits_for_another_is_listed(bench: Bench) -> None:
    bench.detector.fit_gate.clear()
    both = [
        asyncio.create_task(bench.load(*levels, reference_id=ReferenceId(name)))
        for name, levels in (("a", (1,)), ("b", (2, 3)))
    ]
    await until(lambda: [load.stage for load in bench.builder.active_loads()] == [LoadStage.EMBED] * 2)
    assert [(load.reference_id, load.steps_done, load.steps_total) for load in bench.builder.active_loads()] == [
        ("a", 0, 1),
        ("b", 0, 2),
    ]
    bench.detector.fit_gate.set()
    await asyncio.gather(*both)


async def test_a_failed_or_cancelled_load_is_no_longer_listed(bench: Bench) -> None:
    with pytest.raises(EmptyImageError):
        await bench.load(1, -1)
    with pytest.raises(ReferenceNotFoundError):
        await bench.load(1, append=True)
    assert bench.builder.active_loads() == []

    bench.detector.fit_gate.clear()
    loads = [asyncio.create_task(bench.load(10)) for _ in range(2)]
    await until(lambda: len(bench.builder.active_loads()) == 2)
    for load in loads:
        load.cancel()
    await asyncio.gather(*loads, return_exceptions=True)
    assert bench.builder.active_loads() == []
    bench.detector.fit_gate.set()


async def test_a_load_tells_what_its_reference_costs(bench: Bench) -> None:
    loaded = await bench.builder.load(LoadOptions(), images(10, 20))
    async with bench.catalog.use(DEFAULT_REFERENCE_ID) as opened:
        assert loaded.cost.memory_bytes == opened.scorer.nbytes
        assert loaded.cost.patches_per_image == opened.scorer.patches_per_image
    assert loaded.cost.ms_per_image > 0
    assert loaded.info == await bench.catalog.info(DEFAULT_REFERENCE_ID)


async def test_images_that_need_too_much_memory_are_refused_before_they_are_all_there(bench: Bench) -> None:
    side_px = 500  # 750,000 bytes each: two are more than the limit
    asked_for: list[int] = []

    async def recorded_images() -> AsyncIterator[NamedImage]:
        for number in range(4):
            asked_for.append(number)
            yield NamedImage(gray_png(100), "")

    options = LoadOptions(requested=RequestedOptions(input=InputOptions(longer_side_px=side_px)))
    with pytest.raises(
        MemoryBudgetError,
        match=r"^Building a bank from 2 images of 500 x 500 pixels needs 1 MiB; the server allows 1 MiB",
    ):
        await bench.builder.load(options, recorded_images())
    assert asked_for == [0, 1]
    with pytest.raises(MemoryBudgetError, match="4 images"):  # the number is known at the first one
        await bench.builder.load(options, recorded_images(), 4)
    assert asked_for == [0, 1, 0]
    assert not bench.detector.openings


@pytest.mark.parametrize(("size_px", "is_told"), [((400, 40), True), ((400, 300), False)])
async def test_long_images_that_need_too_much_memory_as_squares_are_told_how_to_need_less(
    bench: Bench, size_px: tuple[int, int], is_told: bool
) -> None:
    """A line scan as tiles: in its own proportions it would fit."""

    def load(aspect: AspectRatio) -> Awaitable[object]:
        async def image() -> AsyncIterator[NamedImage]:
            yield NamedImage(gray_png(100, size_px), "")

        options = RequestedOptions(input=InputOptions(longer_side_px=1500, tile_px=224, aspect=aspect))
        return bench.builder.load(LoadOptions(requested=options), image())

    with pytest.raises(MemoryBudgetError) as refused:
        await load(AspectRatio.SQUEEZE)
    advice = "Images of 400 x 40 pixels become squares: keep their proportions (aspect KEEP)."
    assert (advice in str(refused.value)) == is_told
    if is_told:
        await load(AspectRatio.KEEP)


async def test_an_append_counts_the_images_of_its_base(bench: Bench) -> None:
    await bench.load(10, requested={"input": InputOptions(longer_side_px=500)})
    with pytest.raises(MemoryBudgetError, match="2 images"):
        await bench.load(20, append=True)
